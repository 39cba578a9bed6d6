from pathlib import Path

import pytest

from positronic.offboard.serving.limits import memory_limit


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"memory.max": "5000000\n"}, 5_000_000),
        ({"memory/memory.limit_in_bytes": "6000000\n"}, 6_000_000),
        ({"memory.max": "max\n"}, None),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ({}, None),
    ],
)
def test_the_smaller_of_the_machine_and_its_control_group(
    tmp_path: Path, files: dict[str, str], limit: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    kibibytes = Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0]
    machine = int(kibibytes) * 1024
    assert memory_limit(tmp_path) == (limit or pytest.approx(machine, rel=0.01))
