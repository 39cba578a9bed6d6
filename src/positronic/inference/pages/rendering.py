"""Rendering of the templates of this package as pages that need no other file and no network.

Templates escape whatever is put into them, since much of it was written by somebody else: names of
policies and episodes, tasks, errors. Should text ever get out of its place, browsers are told to
run no script but the page's own, and to load nothing.
"""

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from positronic.inference.results import WORDS, flatten


def render(template: str, **values: Any) -> Markup:
    """Return a template of this package filled with ``values``, which it escapes."""
    return Markup(_environment.get_template(template).render(values))


def _asset(name: str) -> Markup:
    """A file of this package, as it is."""
    return Markup(files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _fingerprint(script: str) -> str:
    """The source expression by which a Content-Security-Policy allows one script."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _number(value: Any, spec: str) -> str:
    return format(value, spec)


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, default=str, ensure_ascii=False)


_environment = Environment(
    loader=PackageLoader(__package__, "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_environment.filters |= {
    "number": _number,
    "flatten": flatten,
    "fingerprint": _fingerprint,
    "pretty": _pretty,
}
_environment.globals |= {"words": WORDS, "asset": _asset}
