"""Lists of names as people type them."""

import pytest

from positronic.cli.values import names


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("none", ()),
        (None, ()),
        ("", ()),
        ("image.wrist", ("image.wrist",)),
        ("[image.wrist,image.exterior]", ("image.wrist", "image.exterior")),
        ("image.wrist, 'image.exterior'", ("image.wrist", "image.exterior")),
        (["a", "b"], ("a", "b")),
    ],
)
def test_names(typed: str | list[str] | None, meant: tuple[str, ...]) -> None:
    assert names(typed) == meant
