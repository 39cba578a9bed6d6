"""Pages of the documentation site: the Markdown files where they are, and one for each façade.

MkDocs calls the functions named ``on_...`` (``hooks`` in ``mkdocs.yml``); Griffe, which reads the
packages without importing them, calls :class:`PlainDocstrings`.

MkDocs wants all pages in one folder. Here they keep their places in the repository, so that the
same links work on a Git host and in the site. ``nav`` in ``mkdocs.yml`` says which they are. A page
``api/NAME.md`` is in the site alone: it shows what ``__all__`` of the module NAME names.
"""

import ast
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
REFERENCE = re.compile(r"api/(?P<module>[\w.]+)\.md")
# The tests that run a block know it by a word after its language, which MkDocs does not expect.
FENCE = re.compile(r"^(```\w+) [\w -]+$", re.MULTILINE)
# To draw it, a browser would have to load a script of 3 MB.
DIAGRAM = re.compile(r"^```mermaid$", re.MULTILINE)
DIAGRAM_NOTE = "This diagram is written in Mermaid, which Git hosts draw:\n\n```text"
# How Sphinx names something: :class:`Codec`, :mod:`~positronic.dataset.subsets`.
ROLE = re.compile(r":\w+:`(?P<short>~?)(?P<name>[\w.]+)`")
# How Sphinx begins a block that is shown as it is.
LITERAL = re.compile(r"^::$|(?<=:):$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take every page from its place, and make those of the reference."""
    for file in [*files.documentation_pages(), *files.media_files()]:
        if file.src_dir == config.docs_dir:
            files.remove(file)
            files.append(_file(f"{Path(config.docs_dir).name}/{file.src_uri}", config))
    for path in pages(config.nav):
        if module := REFERENCE.fullmatch(path):
            files.append(File.generated(config, path, content=reference(module["module"])))
        elif path not in files.src_uris and (ROOT / path).is_file():
            files.append(_file(path, config))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Write what only some programs understand as all do."""
    return DIAGRAM.sub(DIAGRAM_NOTE, FENCE.sub(r"\1", markdown))


def pages(nav: Any) -> Iterator[str]:
    """Yield the path of every page that ``nav`` names, at any depth."""
    if isinstance(nav, str):
        yield nav
    for item in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from pages(item)


def reference(module: str) -> str:
    """Return the page that shows the public names of a module."""
    folder = ROOT / "src" / module.replace(".", "/")
    names = public_names(module)
    # By the name that such a module has in common with a function, Griffe finds the module.
    hidden = [name for name in names if (folder / f"{name}.py").is_file()]
    members = "".join(f"\n        - {name}" for name in names if name not in hidden)
    page = f"::: {module}\n    options:\n      members:{members}\n"
    options = "    options:\n      heading_level: 2\n      show_root_full_path: false\n"
    return page + "".join(f"\n::: {module}.{name}.{name}\n{options}" for name in hidden)


def public_names(module: str) -> list[str]:
    """Return ``__all__`` of a module, which is not imported for it.

    Raises:
        PluginError: there is no such module, or it makes nothing public.
    """
    path = ROOT / "src" / module.replace(".", "/")
    # Where names are found when they are asked for, the stub lists them.
    sources = [path / "__init__.pyi", path / "__init__.py", path.with_suffix(".py")]
    for source in filter(Path.is_file, sources):
        for node in ast.parse(source.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                return list(ast.literal_eval(node.value))
    raise PluginError(f"mkdocs.yml has a page for {module}, which has no public names in __all__")


def _file(path: str, config: MkDocsConfig) -> File:
    return File(path, str(ROOT), config.site_dir, config.use_directory_urls)


class PlainDocstrings(griffe.Extension):
    """Turns what docstrings have of Sphinx's markup into Markdown, and names into links."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Change the docstrings of a package before they are parsed; all names are known now."""
        for found in _inside(pkg):
            if found.docstring is not None:
                text = LITERAL.sub("", found.docstring.value)
                found.docstring.value = ROLE.sub(partial(_link, found), text)
            if isinstance(found, griffe.Class):
                # There is no page about them.
                found.bases = [base for base in found.bases if not str(base).startswith("_")]


def _inside(parent: griffe.Object) -> Iterator[griffe.Object]:
    yield parent
    for member in parent.members.values():
        if isinstance(member, griffe.Object):
            yield from _inside(member)


def _link(parent: griffe.Object, role: re.Match[str]) -> str:
    name = role["name"]
    shown = name.rpartition(".")[2] if role["short"] else name
    with suppress(griffe.NameResolutionError):
        name = parent.resolve(name)
    # Not every name is public; such a link is only text.
    return f'<autoref optional identifier="{name}"><code>{shown}</code></autoref>'
