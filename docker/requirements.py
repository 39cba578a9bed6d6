"""Prints the lines of pyproject.toml that say what the images install, and none besides.

What is installed hangs on these alone, so that another version of the project or another setting
of a linter does not download PyTorch again.

    requirements.py PYPROJECT > OUTPUT        OUTPUT is to be named pyproject.toml for uv
"""

import json
import sys
import tomllib
from pathlib import Path


def main() -> None:
    """Print TOML, in which lists are written as in JSON."""
    document = tomllib.loads(Path(sys.argv[1]).read_text())
    project, uv = document["project"], document["tool"]["uv"]
    extras = project["optional-dependencies"]
    tables = {
        "project": {
            "name": project["name"],
            "version": "0",
            "requires-python": project["requires-python"],
            "dependencies": project["dependencies"],
        },
        "project.optional-dependencies": {k: v for k, v in extras.items() if k != "dev"},
        "tool.uv": {k: uv[k] for k in ("override-dependencies", "constraint-dependencies")},
    }
    for table, values in tables.items():
        print(f"[{table}]")
        for key, value in values.items():
            print(f"{key} = {json.dumps(value)}")


if __name__ == "__main__":
    main()
