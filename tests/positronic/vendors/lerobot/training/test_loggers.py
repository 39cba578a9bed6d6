from pathlib import Path

import pytest

from positronic.vendors.lerobot.training.run import loggers


@pytest.mark.parametrize("wandb", ["off", "offline"])
def test_opening_makes_no_directory(
    wandb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process that came by before the first one would have taken the run's name from it."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    monkeypatch.setenv("RANK", "1")
    loggers(tmp_path / "run", wandb=wandb, step=0, settings={})
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("RANK", "0")
    loggers(tmp_path / "run", wandb=wandb, step=0, settings={})
    assert ("wandb sync" in capsys.readouterr().err) == (wandb == "offline")
