import os
from pathlib import Path

import pytest

from foundation.errors import MissingDependency
from positronic.simulator import gl

DISABLED = "MESA_SHADER_CACHE_DISABLE"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.delenv("MESA_SHADER_CACHE_DIR", raising=False)
    # Undone afterwards, whatever the code under test does to it.
    monkeypatch.setenv(DISABLED, "")
    monkeypatch.delenv(DISABLED)


def test_mesa_keeps_no_shaders_where_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for variable, value in (
        ("XDG_CACHE_HOME", tmp_path / "file" / "cache"),
        ("HOME", tmp_path / "file"),
    ):
        monkeypatch.delenv(DISABLED, raising=False)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setenv(variable, str(value))
        assert gl.select_backend() == "egl"
        assert os.environ.get(DISABLED) == "true"


def test_mesa_keeps_them_where_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    gl.select_backend()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not" / "made" / "yet"))
    gl.select_backend()
    assert DISABLED not in os.environ


def test_what_the_user_chose_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    monkeypatch.setenv("MESA_SHADER_CACHE_DIR", str(tmp_path))
    gl.select_backend()
    assert DISABLED not in os.environ


@pytest.mark.skipif(gl.is_available("osmesa"), reason="OSMesa is installed")
def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(MissingDependency, match="MUJOCO_GL=osmesa does not work here; install"):
        gl.select_backend()
    # Physics alone needs none.
    assert gl.select_backend(required=False) in ("disable", "egl")
