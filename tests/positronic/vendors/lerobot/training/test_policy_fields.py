"""The fields that are read from LeRobot's source are those that LeRobot's configs have."""

import dataclasses
from inspect import Parameter
from typing import Any, get_args

import pytest

from positronic.vendors.lerobot.training import policy_fields

POLICIES = sorted(policy_fields.sources())


def test_policies_are_those_that_lerobot_registers() -> None:
    from getiaction.policies.lerobot import list_available_policies

    assert list_available_policies() == POLICIES


@pytest.mark.parametrize("policy", POLICIES)
def test_fields_are_those_of_the_config(policy: str) -> None:
    from getiaction.policies.lerobot.registry import config_class

    theirs = {field.name: field for field in dataclasses.fields(config_class(policy)) if field.init}
    ours = {parameter.name: parameter for parameter in policy_fields.parameters(policy)}
    assert ours.keys() == theirs.keys() - policy_fields.NOT_FLAGS
    for name, parameter in ours.items():
        default = theirs[name].default
        if isinstance(parameter.default, policy_fields.LeRobotsOwn):
            continue
        assert default == parameter.default, name
        assert is_taken(parameter, default), name


def is_taken(parameter: Parameter, value: Any) -> bool:
    """Whether LeRobot's own default is of the type that is asked for."""
    types = get_args(parameter.annotation) or (parameter.annotation,)
    if Parameter.empty in types or (value is None and None in types):
        return True
    whole = isinstance(value, int) and float in types
    return whole or isinstance(value, tuple(t for t in types if t is not None))


def test_most_fields_have_a_type_and_a_default() -> None:
    fields = [field for policy in POLICIES for field in policy_fields.parameters(policy)]
    typed = [field for field in fields if field.annotation is not Parameter.empty]
    known = [field for field in fields if not isinstance(field.default, policy_fields.LeRobotsOwn)]
    assert len(typed) > 0.8 * len(fields)
    assert len(known) > 0.8 * len(fields)


def test_a_policy_that_is_not_lerobots_takes_any_field() -> None:
    (field,) = policy_fields.parameters("somebody_elses")
    assert field.kind is Parameter.VAR_KEYWORD
    assert policy_fields.explained("somebody_elses") == "Args:"
