from collections.abc import Iterator
from typing import Any

import pytest

IMAGE_SIZE = (48, 64)


@pytest.fixture(scope="module")
def env() -> Iterator[Any]:
    """The stacking scene with two small cameras."""
    from positronic import simulator
    from positronic.simulator import gl

    if not any(gl.is_available(name) for name in ("egl", "osmesa")):
        pytest.skip(f"nothing to render with: {gl.APT_COMMAND}")
    world = simulator.make("stack_cubes", image_size=IMAGE_SIZE, max_episode_steps=-1)
    yield world
    world.close()
