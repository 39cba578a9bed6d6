"""Commands to go on with."""

from pathlib import Path

import pytest

from positronic.cli.following import say_convert, say_train


def test_recordings_are_converted_for_a_policy_that_fits_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw-lerobot").mkdir()
    say_convert("raw/", 20, cameras=True)
    say_convert("s3://bucket/raw", 15, cameras=False)
    images, state = capsys.readouterr().out.splitlines()
    assert images.endswith(
        "positronic-to-lerobot convert --dataset.dataset=raw"
        " --dataset.codec=@positronic.vendors.lerobot.codecs.eepose_absolute"
        " --dataset.codec.image_size=64 --fps=20 --output_dir=raw-lerobot-2"
    )
    assert ".eepose_state --fps=15 --output_dir=s3://bucket/raw-lerobot" in state
    assert "image_size" not in state


@pytest.mark.parametrize(
    ("sizes", "policy"),
    [
        (set(), " --policy=.act_state"),
        ({(64, 64)}, " --policy=.act_64px"),
        ({(64, 64), (9, 9)}, ""),
    ],
)
def test_the_policy_is_one_that_takes_the_images(
    sizes: set[tuple[int, int]], policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    say_train("/data/stack", sizes)
    line = capsys.readouterr().out
    assert (
        f" --dataset_root=/data/stack --output_dir=/data/checkpoints --run_name=stack{policy} "
        in line
    )
    assert ("--policy" in line) == bool(policy)


def test_a_run_gets_a_name_that_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints/stack").mkdir(parents=True)
    say_train("stack", set())
    assert " --output_dir=checkpoints --run_name=stack-2 " in capsys.readouterr().out
