"""What a client sends of an observation: what the server's codec reads, and no larger than that."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class RequestFilter:
    """Makes requests for one server; without a contract it lets everything through."""

    def __init__(self, contract: Any = None) -> None:
        """Learn from the ``contract`` in the ready message; public servers send none."""
        document = contract if isinstance(contract, Mapping) else {}
        self._wanted = frozenset(document.get("inputs") or ())
        self._sizes = image_sizes(document)

    def __call__(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        """Leave away what the codec does not read (but for ``task``) and shrink large images."""
        wanted = self._wanted
        request = {k: v for k, v in obs.items() if not wanted or k in wanted or k == "task"}
        for key, (height, width) in self._sizes.items():
            image = request.get(key)
            if isinstance(image, np.ndarray) and image.size > height * width * 3:
                request[key] = _shrink(image, height, width)
        return request


def image_sizes(contract: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Which raw images the codec of a contract resizes first of all, and to which height and width.

    Only those can be resized before they are sent with the same result to the last bit, since
    resizing to the size that an image has already changes nothing.
    """
    spec = (contract.get("codec") or {}).get("spec") or {}
    parts = spec.get("parts", []) if spec.get("kind") == "parallel" else [spec]
    images = [part for part in parts if isinstance(part, Mapping) and part.get("kind") == "image"]
    sources = [part["source"] for part in images]
    return {
        part["source"]: (part["size"][0], part["size"][1])
        for part in images
        if sources.count(part["source"]) == 1
    }


def _shrink(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Resize as the codec does; what is no image goes as it is, and the server says so."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        return image
    from positronic.codec.images import resize_with_pad

    return resize_with_pad(image, height, width)
