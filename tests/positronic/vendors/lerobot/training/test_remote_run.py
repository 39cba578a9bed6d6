import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from foundation import storage
from foundation.errors import StorageError
from foundation.manifest import faults
from positronic.errors import CheckpointError
from positronic.vendors.lerobot.training.remote_run import RUN, RemoteRunDirectory, run_directory
from tests.positronic.vendors.lerobot.training.saved import damage, save, weights
from tests.s3 import BUCKET, Faulty
from tests.waiting import join, until

PLACE = "s3://bucket/runs/one"


def the_run(name: str = "one") -> RemoteRunDirectory:
    run = run_directory("s3://bucket/runs", name)
    assert isinstance(run, RemoteRunDirectory)
    return run


def train(run: RemoteRunDirectory, *steps: int) -> None:
    with run.publishing():
        for step in steps:
            run.saved(save(run.path, step))


def resumed() -> tuple[RemoteRunDirectory, Path | None]:
    with the_run() as run:
        return run, run.resume()


@pytest.fixture
def begun(s3: Any) -> Path:
    """A run with two checkpoints in S3; returns its local directory."""
    with the_run() as run:
        run.begin()
        (run.path / "config.yaml").write_text("steps: 30\n")
        train(run, 10, 20)
        return run.path


def lose_the_cache(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "cache")


def keys(s3: Any) -> list[str]:
    return [o["Key"] for o in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def last() -> str:
    return storage.read_bytes(f"{PLACE}/checkpoints/last").decode()


def overwrite(s3: Any, step: int, content: bytes) -> None:
    key = f"runs/one/checkpoints/{step:06d}/pretrained_model/model.safetensors"
    s3.put_object(Bucket=BUCKET, Key=key, Body=content)


def test_what_is_saved_is_published(begun: Path, s3: Any) -> None:
    for step in ("000010", "000020"):
        checkpoint = storage.fetch(f"{PLACE}/checkpoints/{step}")
        assert faults(checkpoint) == []
    assert last() == "000020\n"
    assert storage.read_bytes(f"{PLACE}/config.yaml") == b"steps: 30\n"
    # One local copy is enough.
    assert sorted(p.name for p in (begun / "checkpoints").iterdir()) == ["000020", "last"]


def test_a_name_is_taken_once(begun: Path, tmp_path: Path) -> None:
    lose_the_cache(tmp_path)
    for refused in (the_run().require_fresh, the_run().begin):
        with pytest.raises(StorageError, match=f"{PLACE} exists already"):
            refused()
    with the_run("on") as run:  # a name that begins that of another run
        run.begin()


def test_of_two_who_begin_at_once_one_does(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RemoteRunDirectory, "require_fresh", lambda self: None)
    together, results = threading.Barrier(4), []

    def begin() -> None:
        run = the_run()
        together.wait(60)
        try:
            with run:
                run.begin()
            results.append("begun")
        except StorageError as error:
            results.append(str(error).partition(";")[0])

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    join(threads, "four runs that begin at once")
    assert sorted(results) == ["begun", *[f"{PLACE} exists already"] * 3]


def test_a_lost_answer_to_the_claim_is_no_refusal(s3: Any, faulty: Faulty) -> None:
    faulty.lose(method="PUT", path=RUN)
    with the_run() as run:
        run.begin()
    assert storage.read_bytes(f"{PLACE}/{RUN}") == (run.path / RUN).read_bytes()


def test_going_on_elsewhere(begun: Path, tmp_path: Path, s3: Any) -> None:
    lose_the_cache(tmp_path)
    with the_run() as run:
        found = run.resume()
        assert found is not None
        assert found.name == "000020"
        assert faults(found) == []
        assert (run.path / "config.yaml").read_text() == "steps: 30\n"
        # Only the newest was fetched.
        assert len(list((tmp_path / "cache").rglob("model.safetensors"))) == 1
        train(run, 30)
    assert last() == "000030\n"
    assert len([key for key in keys(s3) if key.endswith("model.safetensors")]) == 3


def test_the_very_same_local_one_is_not_fetched(begun: Path) -> None:
    assert resumed()[1] == begun / "checkpoints/000020"


def test_what_is_in_s3_counts(begun: Path, tmp_path: Path) -> None:
    """The same step, trained again elsewhere: the copy here is another one."""
    copy = shutil.copytree(begun, tmp_path / "copy", symlinks=True)
    fresh = save(tmp_path / "elsewhere", 20, "other weights")
    storage.publish(fresh, f"{PLACE}/checkpoints/000020", replace=True)
    found = resumed()[1]
    assert found is not None
    assert "other weights" in weights(found).read_text()
    assert "other weights" not in weights(copy / "checkpoints/000020").read_text()


def test_a_local_directory_of_another_run_is_set_aside(
    begun: Path, s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(begun, 30)
    objects = [{"Key": key} for key in keys(s3)]
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": objects})
    with the_run() as run:
        run.begin()
    assert "it is set aside as one.stale" in capsys.readouterr().err
    assert faults(begun.with_name("one.stale") / "checkpoints/000030") == []
    assert resumed()[1] is None


def test_damage_in_s3_is_named_and_the_one_before_is_taken(
    begun: Path, tmp_path: Path, s3: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(weights(begun / "checkpoints/000020").read_bytes())
    content[3] ^= 1
    overwrite(s3, 20, bytes(content))
    lose_the_cache(tmp_path)
    with the_run() as run:
        found = run.resume()
        assert found is not None
        assert found.name == "000010"
        error = capsys.readouterr().err
        assert f"passing over {PLACE}/checkpoints/000020: " in error
        assert last() == "000010\n"
        # Its step comes again, and takes its place.
        train(run, 20)
    assert last() == "000020\n"
    lose_the_cache(tmp_path)
    again = resumed()[1]
    assert again is not None
    assert again.name == "000020"


def test_uploaded_by_other_tools(s3: Any, tmp_path: Path) -> None:
    local = run_directory(str(tmp_path), "one")
    with local:
        local.begin()
        for step in (10, 20):
            save(local.path, step)
    damage(local.checkpoints / "000020")
    for path in local.path.rglob("*"):
        if path.is_file() and "last" not in path.parts:
            s3.upload_file(path, BUCKET, f"runs/one/{path.relative_to(local.path)}")
    found = resumed()[1]
    assert found is not None
    assert found.name == "000010"


def test_nothing_whole_is_not_begun_anew(begun: Path, tmp_path: Path, s3: Any) -> None:
    lose_the_cache(tmp_path)
    for step in (10, 20):
        overwrite(s3, step, b"")
    with pytest.raises(CheckpointError, match="no whole checkpoint: 000020 .*; 000010"):
        resumed()


def test_no_run(s3: Any) -> None:
    with pytest.raises(CheckpointError, match="nothing to resume"):
        resumed()
    assert keys(s3) == []


def test_a_connection_that_fails_is_no_damage(
    begun: Path, tmp_path: Path, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foundation.storage.s3.retry.FIRST_PAUSE_S", 0.001)
    lose_the_cache(tmp_path)
    faulty.status(503, method="GET", path="model.safetensors", times=100)
    with pytest.raises(StorageError, match="000020.*503"):
        resumed()


def test_failures_are_told_and_made_good_at_the_next_save(
    begun: Path,
    faulty: Faulty,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("foundation.storage.s3.retry.FIRST_PAUSE_S", 0.001)
    with the_run() as run:
        run.resume()
        with run.publishing():
            faulty.status(503, method="PUT", path="000030", times=5)
            run.saved(save(run.path, 30))
            logged: list[str] = []

            def is_told() -> bool:
                logged.append(capsys.readouterr().err)
                return "trying again with the next checkpoint" in "".join(logged)

            until(is_told, "the word of a failed publication")
            assert storage.exists(f"{PLACE}/checkpoints/000030") is False
            run.saved(save(run.path, 40))
    for step in (30, 40):
        assert faults(storage.fetch(f"{PLACE}/checkpoints/{step:06d}")) == []
    assert last() == "000040\n"


def test_what_could_not_be_published_is_kept_and_published_first(
    begun: Path,
    faulty: Faulty,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("foundation.storage.s3.retry.FIRST_PAUSE_S", 0.001)
    with the_run() as run:
        run.resume()
        faulty.status(503, method="PUT", path="0000", times=1000)
        with pytest.raises(StorageError, match="is not complete: .*000030.*--resume=True"):
            train(run, 30)
    assert faults(run.checkpoints / "000030") == []
    assert last() == "000020\n"

    faulty.faults.clear()
    assert resumed()[1] == run.checkpoints / "000030"
    assert "publishing s3://bucket/runs/one/checkpoints/000030" in capsys.readouterr().err
    assert faults(storage.fetch(f"{PLACE}/checkpoints/000030")) == []
    assert last() == "000030\n"


def test_an_unfinished_publication_is_completed_or_passed_over(
    begun: Path, tmp_path: Path, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foundation.storage.s3.retry.FIRST_PAUSE_S", 0.001)
    with the_run() as run:
        run.resume()
        faulty.status(503, method="PUT", path="training_step.json", times=1000)
        with pytest.raises(StorageError):
            train(run, 30)
    assert not storage.is_whole(f"{PLACE}/checkpoints/000030")
    assert storage.exists(f"{PLACE}/checkpoints/000030")
    faulty.faults.clear()

    kept = shutil.copytree(tmp_path / "cache", tmp_path / "kept", symlinks=True)
    lose_the_cache(tmp_path)
    with the_run() as run:
        found = run.resume()
        assert found is not None
        assert found.name == "000020"
        # The step comes again with other content.
        run.saved(save(run.path, 30, "other"))
        with run.publishing():
            pass
    assert storage.is_whole(f"{PLACE}/checkpoints/000030")

    # Here it was the same run, but that step is in S3 now.
    lose_the_cache(tmp_path)
    kept.rename(tmp_path / "cache")
    found = resumed()[1]
    assert found is not None
    assert "other" in weights(found).read_text()


def test_curves_grow_and_nothing_is_removed(begun: Path, s3: Any, tmp_path: Path) -> None:
    before = set(keys(s3))
    lose_the_cache(tmp_path)
    with the_run() as run:
        run.resume()
        curves = run.path / "tensorboard/events.out.tfevents.1.host.2.0"
        with run.publishing():
            curves.parent.mkdir()
            curves.write_bytes(b"one")
            run.saved(save(run.path, 30))
            curves.write_bytes(b"one two")
    assert storage.read_bytes(f"{PLACE}/tensorboard/{curves.name}") == b"one two"
    assert before < set(keys(s3))
