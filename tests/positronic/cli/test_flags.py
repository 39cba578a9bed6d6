"""Values of flags, as Python, LeRobot and YAML spell them."""

from typing import Any

import configuronic as cfn
import pytest

from foundation.errors import UsageError
from positronic.cli.flags import parse_value


def options(
    switch: bool = False,
    maybe: bool | None = None,
    count: int | None = 3,
    rate: float = 0.5,
    name: str = "a",
    other: str | None = None,
    either: bool | str = "auto",
    sizes: list[int] | None = None,
    anything: Any = None,
) -> None:
    """Take one flag of each kind."""


CONFIG = cfn.Config(options)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("switch", "false", False),
        ("switch", "true", True),
        ("switch", "False", False),
        ("switch", "TRUE", True),
        ("maybe", "null", None),
        ("maybe", "none", None),
        ("maybe", "None", None),
        ("maybe", "true", True),
        ("count", "null", None),
        ("count", "7", 7),
        ("rate", "1e-4", 1e-4),
        ("rate", "3", 3.0),
        ("name", "true", "true"),
        ("name", "null", "null"),
        ("name", "none", "none"),
        ("other", "null", None),
        ("other", "none", "none"),
        ("other", "None", None),
        ("other", "false", "false"),
        ("either", "false", False),
        ("either", "auto", "auto"),
        ("sizes", "[1,2]", [1, 2]),
        ("sizes", "null", None),
        ("anything", "true", True),
        ("anything", "[true,null,x]", [True, None, "x"]),
        ("anything", "None", None),
        ("anything", "none", "none"),
    ],
)
def test_each_spelling(name: str, text: str, value: Any) -> None:
    found = parse_value(CONFIG, name, text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("switch", "yes", "--switch=yes: expected bool"),
        ("switch", "1", "--switch=1: expected bool"),
        ("switch", "null", "--switch=null: expected bool"),
        ("count", "true", "--count=true: expected int or None"),
        ("rate", 10**400, "--rate=1000.*: too large for a float"),
        ("rate", "null", "--rate=null: expected float"),
        ("rate", "\x1b[31m" + "9" * 9999, r"--rate=\\x1b\[31m9{20,80}"),
    ],
)
def test_what_fits_nowhere(name: str, given: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        parse_value(CONFIG, name, given)
    assert len(str(error.value)) < 200
