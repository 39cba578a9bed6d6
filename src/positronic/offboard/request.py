"""What a client sends of an observation: what the server's codec reads, and no larger than that."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.offboard import jpeg

# No signals of the robot: what it is told to do, and the seed of a policy that draws numbers.
_NO_SIGNALS = ("task", "seed")


class RequestFilter:
    """Makes requests for one server; without a contract it lets all signals through."""

    def __init__(self, contract: Any = None, jpeg_quality: int | None = None) -> None:
        """Prepare.

        Args:
            contract: The ``contract`` in the ready message; public servers send none.
            jpeg_quality: Compress images with it; None sends them as they are.

        Raises:
            SessionError: The contract is malformed.
        """
        from positronic.offboard import ready  # only once a server has sent one

        self._wanted = frozenset(ready.contract(contract).inputs)
        self._sizes = image_sizes(contract)
        self._jpeg_quality = jpeg_quality

    def __call__(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        """Leave away what the codec does not read, shrink large images, and compress them."""
        request = {key: value for key, value in obs.items() if self._takes(key)}
        for key, (height, width) in self._sizes.items():
            image = request.get(key)
            if isinstance(image, np.ndarray) and image.size > height * width * 3:
                request[key] = _shrink(image, height, width)
        if self._jpeg_quality is not None:
            for key, value in request.items():
                if _is_image(value):
                    request[key] = jpeg.encode(value, self._jpeg_quality)
        return request

    def _takes(self, key: str) -> bool:
        if self._wanted:
            return key in self._wanted or key in _NO_SIGNALS
        # Public servers would take it for a signal.
        return key != "seed"


def image_sizes(document: Any) -> dict[str, tuple[int, int]]:
    """Which raw images the codec of a contract resizes first of all, and to which height and width.

    Only those can be resized before they are sent with the same result to the last bit, since
    resizing to the size that an image has already changes nothing.

    Raises:
        SessionError: The contract is malformed.
    """
    from positronic.offboard import ready

    contract = ready.contract(document)
    spec = contract.codec.spec if contract.codec is not None else {}
    parts = spec.get("parts") if spec.get("kind") == "parallel" else [spec]
    images = [
        ready.image_part(part)
        for part in (parts if isinstance(parts, list) else [])
        if isinstance(part, Mapping) and part.get("kind") == "image"
    ]
    counts = Counter(part.source for part in images)
    return {
        part.source: (part.size[0], part.size[1]) for part in images if counts[part.source] == 1
    }


def _is_image(value: Any) -> bool:
    return (
        isinstance(value, np.ndarray)
        and value.ndim == 3
        and value.shape[2] == 3
        and value.dtype == np.uint8
        and value.size > 0
    )


def _shrink(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Resize as the codec does; what is no image goes as it is, and the server says so."""
    if not _is_image(image):
        return image
    from positronic.codec.images import resize_with_pad

    return resize_with_pad(image, height, width)
