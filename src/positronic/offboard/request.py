"""Request filter: sends only the signals and the image size that the server's codec reads."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.errors import CodecError
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
        """
        document = contract if isinstance(contract, Mapping) else {}
        self._wanted = frozenset(document.get("inputs") or ())
        self._sizes = image_sizes(document)
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


def image_sizes(contract: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Which raw images the codec of a contract resizes first of all, and to which height and width.

    Only those can be resized before they are sent with the same result to the last bit, since
    resizing to the size that an image has already changes nothing.
    """
    from positronic.codec import Image, Parallel, from_spec

    try:
        codec = from_spec((contract.get("codec") or {}).get("spec") or {})
    except CodecError:
        return {}  # of a version or a package that is not here: the server resizes
    parts = codec.parts if isinstance(codec, Parallel) else (codec,)
    images = [part for part in parts if isinstance(part, Image)]
    sources = [image.source for image in images]
    return {image.source: image.size for image in images if sources.count(image.source) == 1}


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
