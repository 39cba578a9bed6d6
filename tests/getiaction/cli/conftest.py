from collections.abc import Callable
from pathlib import Path

import pytest

# Lightning logs to the stderr of the moment of its import, which must not be that of one test.
import getiaction.cli.command  # noqa: F401
from tests.getiaction.hub import Recording, make_hub

CONFIGS = Path(__file__).parents[3] / "configs"
type Enter = Callable[..., None]


@pytest.fixture
def enter_hub(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Enter:
    """Have the given datasets of the hub at hand, in a directory of one's own."""

    def enter(*recordings: Recording) -> None:
        make_hub(tmp_path_factory, *recordings).enter(monkeypatch)
        monkeypatch.chdir(tmp_path)

    return enter
