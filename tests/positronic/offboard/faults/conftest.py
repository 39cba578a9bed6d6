from collections.abc import Iterator

import pytest

from tests.positronic.offboard.faults.process import ServerProcess, server_process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests of a module: what one of them does must not harm the next."""
    with server_process(tmp_path_factory.mktemp("server") / "log") as server:
        yield server.wait_until_ready()
