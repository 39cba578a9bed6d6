"""Docstrings of the whole source: help texts and the reference are made of them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "src"
SECTION = re.compile(r"( *)(Args|Attributes|Raises|Returns|Yields):$")
ENTRY = re.compile(r"    (\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*)(?: \([^)]*\))?:")
ASKING = re.compile(r"(What|Whether|Where|Which|How|Who|Why|When)\b")


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(SOURCES.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def test_modules_begin_with_what_they_are() -> None:
    docs = {path: ast.get_docstring(tree) for path, tree in trees()}
    assert len(docs) > 200
    assert [path for path, doc in docs.items() if doc and ASKING.match(doc)] == []
    assert [path for path, doc in docs.items() if not doc and path.stat().st_size] == []


def test_sections_are_lists_of_names_each_on_a_line_of_its_own() -> None:
    """A paragraph that an editor filled has them in one, and ``--help`` loses flags."""
    wrong, seen = [], 0
    for path, tree in trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            section = ""
            for line in (ast.get_docstring(node) or "").splitlines():
                if match := SECTION.match(line):
                    section = match[2]
                    indented = bool(match[1])
                elif not line.startswith("    "):
                    section = section if not line else ""
                    continue
                else:
                    listed = section in ("Args", "Attributes", "Raises") and line[4] != " "
                    indented = listed and not ENTRY.match(line)
                    seen += listed
                if indented:
                    wrong.append(f"{path.relative_to(SOURCES)}:{node.lineno} {line.strip()}")
    assert wrong == []
    assert seen > 1000
