import pytest

from positronic.errors import SessionError
from positronic.offboard.session import SessionMachine, SessionState

S = SessionState


def test_a_whole_session() -> None:
    machine = SessionMachine()
    for state in [S.LOADING, S.LOADING, S.READY, S.INFERRING, S.READY, S.INFERRING, S.CLOSED]:
        machine.to(state)
        machine.require(state)
    assert machine.closed


@pytest.mark.parametrize(
    ("path", "illegal"),
    [
        ([], S.INFERRING),
        ([S.LOADING], S.INFERRING),
        ([S.READY], S.LOADING),
        ([S.READY], S.READY),
        ([S.READY, S.INFERRING], S.INFERRING),
        ([S.READY, S.INFERRING], S.LOADING),
        ([S.CLOSED], S.READY),
        ([S.CLOSED], S.INFERRING),
    ],
)
def test_an_illegal_transition_names_expected_and_got(
    path: list[SessionState], illegal: SessionState
) -> None:
    machine = SessionMachine()
    for state in path:
        machine.to(state)
    before = machine.state
    with pytest.raises(
        SessionError, match=f"is {before.value} cannot become {illegal.value}; expected"
    ):
        machine.to(illegal)
    assert machine.state is before


def test_require_names_expected_and_got() -> None:
    with pytest.raises(SessionError, match="expected a session that is ready, got opening"):
        SessionMachine().require(S.READY)


@pytest.mark.parametrize("path", [[], [S.LOADING], [S.READY], [S.READY, S.INFERRING], [S.CLOSED]])
def test_every_state_can_close(path: list[SessionState]) -> None:
    machine = SessionMachine()
    for state in [*path, S.CLOSED]:
        machine.to(state)
    assert machine.closed
