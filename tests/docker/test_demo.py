"""``make docker-demo`` in small; a second one has nothing left to do."""

from tests.docker.caller import Caller

SMALL = "make docker-demo EPISODES=3 STEPS=5 ROLLOUTS=1"


def test_the_demo(caller: Caller) -> None:
    printed = caller.ok(SMALL, folder=".", timeout=1800)
    assert "success rate " in printed
    # From the checkout, where `make` was typed.
    report = "demo/stack_cubes-state/rollouts/report.html"
    assert printed.splitlines()[-1] == f"report: {report}"
    assert "<video" in (caller.checkout / report).read_text()
    assert caller.strangers() == []

    assert caller.ok(SMALL, folder=".").count("already done") == 4
    other = caller.run(f"{SMALL} TASK=stack_cubes EPISODES=4", folder=".")
    assert other.status != 0
    assert "FRESH=1" in other.printed
    assert caller.containers("demo", every=True) == []
