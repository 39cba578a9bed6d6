"""What the training command makes of ``--policy`` and ``--config`` before it imports torch."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.positronic.vendors.lerobot.small_dataset import write_dataset
from tests.positronic.vendors.lerobot.training.training_commands import command, flags, refused


@pytest.fixture(scope="module")
def dataset_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("train") / "dataset")


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, object]:
    assert command(*words, "--config=print") == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    assert isinstance(settings, dict)
    return settings


def policy(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, object]:
    found = printed(capsys, *words)["policy"]
    assert isinstance(found, dict)
    return found


def test_fields_come_before_or_after_the_policy(capsys: pytest.CaptureFixture[str]) -> None:
    found = policy(capsys, "--policy.kl_weight=3", "--policy=.act_state", "--policy.dropout=0.2")
    assert (found["type"], found["kl_weight"], found["dropout"]) == ("act", 3.0, 0.2)
    assert (found["dim_model"], found["warmup_steps"]) == (128, 100)


def test_lerobots_spellings(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--policy=.act", "--policy.use_vae=false", "--policy.temporal_ensemble_coeff=null"]
    found = policy(capsys, *words, "--policy.pretrained_backbone_weights=null")
    assert (found["use_vae"], found["temporal_ensemble_coeff"]) == (False, None)
    assert found["pretrained_backbone_weights"] is None


@pytest.mark.parametrize("flag", ["--policy=diffusion", "--policy.type=diffusion"])
def test_any_policy_of_lerobot(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    found = policy(capsys, "--policy.down_dims=[32,64]", flag)
    assert (found["type"], found["horizon"], found["down_dims"]) == ("diffusion", 64, [32, 64])


def test_what_is_printed_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    from getiaction.policies.lerobot import policy_config

    settings = printed(capsys, "--policy=vqbet", "--val_split=0.25", "--save_freq=50")
    for name in ("dataset_root", "run_name", "output_dir"):
        assert settings[name] is None
    assert (settings["batch_size"], settings["eval_freq"], settings["seed"]) == (8, 50, 1000)
    assert settings["val_split"] == 0.25
    assert not {"config", "resume"} & settings.keys()
    fields = dict(settings["policy"])  # type: ignore[call-overload]
    assert (fields.pop("type"), fields.pop("warmup_steps")) == ("vqbet", None)
    assert policy_config("vqbet", fields) == policy_config("vqbet")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--policy=difusion"], "did you mean 'diffusion'?"),
        (["--policy=diffusion", "--policy.horizn=8"], "did you mean '--policy.horizon'?"),
        (["--policy.horizon=8"], "there is no flag --policy.horizon"),
        (["--policy.dropout=much", "--policy=act"], "--policy.dropout=much: expected float"),
        (["--policy.use_vae=3"], "--policy.use_vae=3: expected bool"),
        (["--policy.device=cuda"], "there is no flag --policy.device"),
        (["--precision=bf16"], "expected one of: 32-true, bf16-mixed, 16-mixed"),
        (["--wandb=offlin"], "expected one of: auto, online, offline, off"),
        (["--val_split=1.5"], "--val_split is 1.5"),
        (["--eval_env=stack_cube"], "did you mean 'stack_cubes'"),
        (["--eval_env=positronic/StackCubes"], "did you mean 'positronic/StackCubes-v0'"),
        (["--accumulate=0"], "--accumulate is 0; expected 1 or more"),
        (["--devices=2.5"], "--devices=2.5: expected int"),
        (["--seed=-1"], "--seed is -1; expected a number from 0 to 4294967295"),
        (["--seed=99999999999"], "expected a number from 0 to 4294967295"),
        (["--codec=eepose_stat"], "not a codec (did you mean '.eepose_state'?); give ."),
        (["--codec.n_objects=3"], "--codec.n_objects: choose --codec=.eepose_delta or "),
        (["--policy=act_sate"], "did you mean '.act_state'?"),
        (["--policy=@positronic.geom.yaw"], "--policy makes a function, not a policy; give .act"),
    ],
)
def test_refusals(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], says: str
) -> None:
    # The preset's flags are left out: a policy of another kind has none of them.
    needed = [f"--dataset_root={tmp_path}", "--run_name=run", f"--output_dir={tmp_path}"]
    assert says in refused(capsys, 2, *needed, *words)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stepz: 4", "there is no setting 'stepz' (did you mean 'steps'?)"),
        ("resume: true", "there is no setting 'resume'"),
        ("steps: many", "--steps=many: expected int"),
        ("seed: true", "--seed=True: expected int"),
        ("policy: {type: act, kl_wait: 3}", "has no field 'kl_wait' (did you mean 'kl_weight'?)"),
        ("policy: {type: act, kl_weight: [3]}", "--policy.kl_weight=[3]: expected float"),
        ("policy: {kl_weight: 3}", "policy has no type"),
        ("policy: acct", "did you mean 'act'?"),
        ("policy: 7", "policy is 7; expected LeRobot's name of it"),
        ("codec: {name: x, spec: {kind: nonsense}}", "nonsense"),
        ("- steps", "expected a valid dictionary, found a list"),
        ("steps: [", "is not YAML"),
    ],
)
def test_refusals_of_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, says: str
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert says in refused(capsys, 2, f"--config={file}", "--config=print")


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "none.yaml" in refused(capsys, 2, f"--config={tmp_path}/none.yaml")


def test_flags_override_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "steps: 30\nseed: 3\nwandb: off\npolicy: {type: act, dropout: 1e-2, kl_weight: 3}\n"
    )
    settings = printed(capsys, f"--config={file}", "--seed=4", "--policy.kl_weight=5")
    assert (settings["steps"], settings["seed"], settings["wandb"]) == (30, 4, "off")
    fields = settings["policy"]
    assert isinstance(fields, dict)
    assert (fields["dropout"], fields["kl_weight"]) == (0.01, 5.0)


def test_what_is_printed_is_read_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--policy=.act_64px", "--codec=@positronic.vendors.lerobot.codecs.eepose_absolute"]
    settings = printed(capsys, *words, "--codec.image_size=[64,64]", "--run_name=007")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(settings))
    assert printed(capsys, f"--config={file}") == settings
    assert settings["run_name"] == "007"


def test_help_lists_the_fields_of_the_policy(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--policy=tdmpc", "--help") == 0
    text = capsys.readouterr().out
    assert "--policy.gaussian_mixture_std" not in text
    assert "--policy.horizon=5" in text
    for flag in ("--accumulate=1", "--precision=None", "--eval_env=None", "--config=None"):
        assert flag in text


def test_presets_and_codecs_have_short_names(capsys: pytest.CaptureFixture[str]) -> None:
    long = "@positronic.vendors.lerobot.codecs.eepose_state"
    settings = printed(capsys, "--policy=.act_state", f"--codec={long}")
    for policy in ("act_state", ".act_state"):
        for codec in ("eepose_state", ".eepose_state"):
            assert printed(capsys, f"--policy={policy}", f"--codec={codec}") == settings
    assert printed(capsys, "--policy=.vqbet") == printed(capsys, "--policy=vqbet")


def test_help_says_something_of_each_flag_and_its_own_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command("--help") == 0
    lines = capsys.readouterr().out.splitlines()
    flags = [i for i, line in enumerate(lines) if line.startswith("  --")]
    assert len(flags) > 50
    bare = [
        lines[i]
        for i in flags
        if not lines[i][30:].strip(" )") and not lines[i + 1].startswith(" " * 30)
    ]
    assert bare == []
    own = [i for i in flags if not lines[i].startswith("  --policy.")]
    assert max(own) < min(set(flags) - set(own))
    assert "  --policy=.act " in "\n".join(lines)


def test_all_of_this_needs_no_torch(dataset_root: Path, tmp_path: Path) -> None:
    wrong = flags(dataset_root, tmp_path, "--policy.dropout=much")
    other = flags(dataset_root, tmp_path, "--policy=difusion")
    program = (
        "import sys\n"
        "from positronic.vendors.lerobot.train import status\n"
        "assert status(['--policy=smolvla', '--help']) == 0\n"
        f"assert status({wrong!r}) == 2\n"
        f"assert status({other!r}) == 2\n"
        "heavy = {'torch', 'lerobot', 'lightning', 'pyarrow', 'av'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
