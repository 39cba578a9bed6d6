import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_pip_and_uv_have_the_same_pins() -> None:
    """uv reads them in pyproject.toml alone, and pip in a constraints file alone."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins == document["tool"]["uv"]["constraint-dependencies"]
