"""Docstrings of the whole source, and what an ``__init__`` may hold."""

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


# What they define has a reason, which ARCHITECTURE.md gives.
DEFINING = {"positronic/cfg/ds", "getiaction/policies/lerobot"}


def test_an_init_defines_nothing() -> None:
    """But how a name loads its module when it is used."""
    defining = {
        path.parent.relative_to(SOURCES).as_posix()
        for path, tree in trees()
        if path.name == "__init__.py"
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and node.name not in ("__getattr__", "__dir__")
    }
    assert defining == DEFINING


def test_files_that_pages_name_are_there() -> None:
    root = SOURCES.parent
    pages = [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("benchmarks/*.md")]
    rooms = (root, SOURCES, SOURCES / "positronic", root / "tests")
    named = {
        (page.name, name)
        for page in pages
        # The log of changes tells of what is no more.
        if page.name != "CHANGELOG.md"
        for name in re.findall(r"`([\w./]+/\w+\.py)`", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 100
    assert [each for each in sorted(named) if not any((r / each[1]).is_file() for r in rooms)] == []
