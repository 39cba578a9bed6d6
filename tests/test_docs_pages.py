"""The documentation site, built as ``make docs`` builds it, and looked at in a browser."""

import ast
import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.chromium import needs_chromium

pytestmark = pytest.mark.e2e  # each builds the site, some seconds

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
# As `mkdocs build --strict`; says at last which of the packages it has imported.
BUILD = """
import sys
from mkdocs.__main__ import cli
ended = cli(sys.argv[1:], standalone_mode=False)
print("imported", {"torch", "getiaction", "positronic", "foundation"} & set(sys.modules))
sys.exit(ended)
"""
# What a page loads by itself; a link that a reader follows is no such thing.
LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "srcset"}


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    words = ["build", "--strict", f"--config-file={root / 'mkdocs.yml'}", f"--site-dir={site}"]
    command = [sys.executable, "-W", "ignore", "-c", BUILD, *words]
    environment = {"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    built = build(ROOT, folder)
    assert built.returncode == 0, built.stderr
    assert built.stdout.splitlines()[-1] == "imported set()"
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Quietly."""

    handler = functools.partial(Handler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def facades() -> dict[str, list[str]]:
    """``__all__`` of every package."""
    found = {}
    for source in sorted(SRC.rglob("__init__.py")):
        stub = source.with_suffix(".pyi")
        module = ".".join(source.parent.relative_to(SRC).parts)
        for node in ast.parse((stub if stub.exists() else source).read_text()).body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                if ast.unparse(target) == "__all__":
                    found[module] = ast.literal_eval(node.value)
        assert module in found, f"{source} does not say what is public: it has no __all__"
    return found


class Page(HTMLParser):
    """What a page loads, links to and shows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.classes: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids.add(given.get("id", ""))
        self.classes |= set(given.get("class", "").split())
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in LOADED and LOADED[tag] in given:
            self.loads.append(given[LOADED[tag]])


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    offered = facades()
    assert len(offered) > 30
    assert {"Row", "Features", "read", "require_rotations"} <= set(offered["positronic.codec"])
    for module, names in offered.items():
        if names:
            ids = Page(site / f"api/{module}.html").ids
            # One function is called as its module is.
            missing = {n for n in names if not {f"{module}.{n}", f"{module}.{n}.{n}"} & ids}
            assert missing == set(), module


def test_every_page_of_the_reference_explains_each_name(site: Path) -> None:
    for path in (site / "api").glob("*.html"):
        article = path.read_text().partition("<article")[2].partition("</article>")[0]
        article = re.sub(r"(?s)<pre.*?</pre>", "", article)
        # Markup of docstrings that nothing has made something of.
        assert not re.search(r":\w+:<|::\s|``|<p>(Args|Raises|Returns):\s", article), path
        assert "<p>" in article, f"{path} explains nothing"


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = [Page(path) for path in site.rglob("*.html")]
    assert len(pages) > 70
    loaded = {url for page in pages for url in page.loads}
    assert {url for url in loaded if urlsplit(url).netloc or urlsplit(url).scheme} == set()
    # For a diagram the theme would fetch Mermaid.
    assert not any("mermaid" in page.classes for page in pages)
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text()), sheet


def test_links_lead_to_pages_and_places(site: Path) -> None:
    """MkDocs looks at links in Markdown alone; half of these were made from docstrings."""
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    for page in pages.values():
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (page.path.parent / unquote(url.path)).resolve() if url.path else page.path
            assert target.is_file(), f"{page.path}: {link}"
            if url.fragment and target in pages and not url.fragment.startswith("__"):
                assert unquote(url.fragment) in pages[target].ids, f"{page.path}: {link}"


@needs_chromium
def test_a_browser_asks_no_other_host(browser: Any, address: str) -> None:
    for page in ("index", "ARCHITECTURE", "docs/serving", "api/positronic.codec"):
        browser.get(f"{address}/{page}.html")
        loaded = browser.execute_script(
            "return performance.getEntriesByType('resource').map(entry => entry.name)"
        )
        assert len(loaded) > 3
        assert [url for url in loaded if not url.startswith(f"{address}/")] == []
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert browser.find_element("tag name", "h1").text == "positronic.codec"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A copy of the site with two pages and a reference."""
    for folder in ("scripts", "docs", "src/own"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ROOT / "scripts/docs_pages.py", tmp_path / "scripts")
    config = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[0]
    nav = "nav: [README.md, docs/other.md, api/own.md]"
    (tmp_path / "mkdocs.yml").write_text(f"{config}\n{nav}\n")
    (tmp_path / "docs/site.css").touch()
    (tmp_path / "docs/other.md").write_text("# Other\n\n[back](../README.md)\n")
    (tmp_path / "src/own/__init__.py").write_text('"""Own."""\n__all__ = ["SIZE"]\nSIZE = 1\n')
    (tmp_path / "README.md").write_text("# Home\n\n[other](docs/other.md), [size][own.SIZE]\n")
    return tmp_path


def test_a_link_that_leads_nowhere_fails(small: Path) -> None:
    built = build(small, small / "site")
    assert built.returncode == 0, built.stderr
    wrong = ["[a](docs/others.md)", "[b](docs/other.md#nowhere)", "![c](docs/c.jpg)", "[d][own.D]"]
    for number, link in enumerate(wrong):
        (small / f"docs/{number}.md").write_text(f"# Wrong\n\n{link.replace('docs/', '')}\n")
    built = build(small, small / "site")
    assert built.returncode != 0
    for number, said in enumerate(("others.md", "nowhere", "c.jpg", "own.D")):
        assert re.search(rf"WARNING.*docs/{number}\.md.*{re.escape(said)}", built.stderr), said
    # Nor does anything lead to them.
    assert re.search(r"not included in the \"nav\"[^:]*:\s+- docs/0\.md", built.stderr)


def test_a_page_for_what_is_not_public_fails(small: Path) -> None:
    (small / "src/own/__init__.py").write_text('"""Own."""\nSIZE = 1\n')
    built = build(small, small / "site")
    assert built.returncode != 0
    assert "a page for own, which has no public names" in built.stderr
