import fnmatch
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def test_an_installed_package_has_every_file() -> None:
    """An editable install has them anyway; a container's is not editable."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = document["tool"]["setuptools"]["package-data"]["*"]
    code = {".py", ".pyi", ".pyc"}
    packages = [path.parent for path in (ROOT / "src").glob("*/__init__.py")]
    files = [path for package in packages for path in package.rglob("*") if path.is_file()]
    data = [path for path in files if path.suffix not in code]
    assert len(data) > 10
    left_out = [p for p in data if not any(fnmatch.fnmatch(p.name, each) for each in patterns)]
    assert left_out == []


def test_the_citation_names_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {key: citation[key] for key in ("version", "license")} == {
        key: project[key] for key in ("version", "license")
    }
    assert citation["title"] == project["name"]
