"""Episodes of ALOHA and ACT: one HDF5 file each, of one arm or two.

Layout of a file, as ACT's ``record_episodes.py`` and ``record_sim_episodes.py`` write it::

    action                        (T, 14)  target positions: of each arm six joints, one gripper
    observations/qpos, qvel       (T, 14)  the same of the robot; effort (T, 14) optional
    observations/images/CAMERA    (T, H, W, 3), or (T, N) JPEG files padded with zeros
    compress_len                  (cameras, T) bytes of each JPEG file; optional
    base_action                   (T, 2)  of Mobile ALOHA's base; optional
    attributes                    sim, compress

A gripper is 0 when closed and 1 when open.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.text import printable
from positronic.errors import DatasetError, EpisodeError
from positronic.importers.foreign import Foreign, Rows
from positronic.importers.source import Assumption, Recording, Sample, Stream

# ACT's constants.DT is 0.02 s.
FPS = 50.0
# Elements of one arm: six joints and a gripper.
ARM = 7
# By array: the signals of an arm's joints and of its gripper.
PARTS = {
    "qpos": ("robot_state.q", "grip"),
    "qvel": ("robot_state.dq", "grip_speed"),
    "effort": ("robot_state.effort", "grip_effort"),
    "action": ("robot_commands.joints", "target_grip"),
}
MOST_PIXELS = 4096 * 4096


@dataclass(frozen=True)
class Aloha:
    """ALOHA's HDF5 files as a source.

    Attributes:
        files: one for each episode, in order.
        fps: rows per second, which the files do not say.
        bgr: whether the three channels of pictures are blue, green, red.
        given: whether the user gave ``fps``.
    """

    files: Sequence[Path]
    fps: float = FPS
    bgr: bool = False
    given: bool = False
    format: str = "aloha"

    @classmethod
    def at(cls, place: Path, fps: float | None, *, bgr: bool) -> "Aloha":
        """Find the files at a place: one file, or a directory of them.

        Raises:
            DatasetError: there are none.
        """
        files = [place] if place.is_file() else sorted(place.glob("*.hdf5"), key=_number)
        if not files:
            raise DatasetError(
                f"{place} has no .hdf5 files; give a directory with episode_0.hdf5 and so on"
            )
        return cls(files, FPS if fps is None else fps, bgr, fps is not None)

    @property
    def assumptions(self) -> Sequence[Assumption]:
        """What the files do not say."""
        colours = "blue, green, red" if self.bgr else "red, green, blue"
        found = [Assumption("order of colours", colours, "as --bgr says")]
        if not self.given:
            found.append(Assumption("rate", f"{FPS:g} per second", "ACT's DT; else give --fps"))
        return found

    def recordings(self) -> Sequence[Recording]:
        """One for each file."""
        found = []
        for file in self.files:
            statics = {"source.file": file.name}
            found.append(Recording(file.name, statics, file.stat().st_mtime_ns))
        return found

    def streams(self) -> Sequence[Stream]:
        """Those of the first file that can be read."""
        first: EpisodeError | None = None
        for file in self.files:
            try:
                with _opened(file) as root:
                    return self._streams(root)
            except EpisodeError as error:
                first = first or error
        raise DatasetError(f"none of the {len(self.files)} files can be read: {first}")

    def samples(self, recording: Recording) -> Iterator[Sample]:
        """Row i of each array at ``i / fps`` seconds."""
        (file,) = [file for file in self.files if file.name == recording.id]
        with _opened(file) as root:
            vectors = {name: array for name, _, array in _vectors(root)}
            cameras = self._cameras(root)
            counts = {name: len(rows) for name, rows in vectors.items()}
            counts |= {name: len(rows) for name, rows in cameras.items()}
            count = counts.get("robot_state.q", next(iter(counts.values())))
            wrong = [name for name, length in counts.items() if length != count]
            if wrong:
                raise EpisodeError(
                    f"{file.name}: {counts[wrong[0]]} rows of {wrong[0]} for {count} of the others"
                )
            for row in range(count):
                ts_ns = round(row * 1e9 / self.fps)
                for name, array in vectors.items():
                    yield Sample(name, ts_ns, array[row])
                for name, frames in cameras.items():
                    yield Sample(name, ts_ns, self._picture(frames[row], file.name, name, row))

    def _streams(self, root: Foreign) -> list[Stream]:
        found = [
            Stream(name, place, "numbers", array.shape[1:], str(array.dtype), len(array))
            for name, place, array in _vectors(root)
        ]
        for name, frames in self._cameras(root).items():
            place = f"observations/images/{name.removeprefix('image.')}"
            shape = self._picture(frames[0], "the first file", name, 0).shape
            found.append(Stream(name, place, "image", shape, "uint8", len(frames)))
        return found

    def _cameras(self, root: Foreign) -> Mapping[str, Rows]:
        observations = root.group("observations")
        if "images" not in observations:
            return {}
        images = observations.group("images")
        found = {f"image.{printable(name, 100)}": images.rows(name) for name in images}
        for name, rows in found.items():
            raw = len(rows.shape) == 3 and rows.shape[2] == 3
            if rows.dtype != np.uint8 or not (raw or len(rows.shape) == 1) or not len(rows):
                raise EpisodeError(
                    f"{root.name}: {name} is {rows.dtype} {(len(rows), *rows.shape)}, expected"
                    " uint8 (T, H, W, 3), or (T, N) JPEG files"
                )
        return found

    def _picture(self, row: NDArray[np.uint8], file: str, name: str, index: int) -> Any:
        image = row if row.ndim == 3 else _decoded(row, f"{file}: {name} of row {index}")
        return np.ascontiguousarray(image[..., ::-1]) if self.bgr else image


def _vectors(root: Foreign) -> Iterator[tuple[str, str, NDArray[Any]]]:
    """Name, place and values ``(T, n)`` or ``(T,)`` of each numeric signal."""
    observations = root.group("observations")
    for key, (joints, gripper) in PARTS.items():
        group = root if key == "action" else observations
        place = key if key == "action" else f"observations/{key}"
        if key not in group:
            if key in ("qpos", "action"):
                raise EpisodeError(f"{root.name} has no {place}; expected an episode of ACT")
            continue
        values = group.array(key)
        if values.ndim != 2 or values.shape[1] not in (ARM, 2 * ARM) or not len(values):
            raise EpisodeError(
                f"{root.name}: {place} has the shape {values.shape}, expected (T, {ARM}) of one arm"
                f" or (T, {2 * ARM}) of two"
            )
        if not np.isfinite(values).all():
            raise EpisodeError(f"{root.name}: {place} has a value that is not finite")
        for index in range(values.shape[1] // ARM):
            arm = ("left.", "right.")[index] if values.shape[1] > ARM else ""
            own = values[:, index * ARM : (index + 1) * ARM].astype(np.float32)
            yield f"{arm}{joints}", f"{place}[{arm or 'joints'}]", own[:, : ARM - 1]
            yield f"{arm}{gripper}", f"{place}[{arm}gripper]", own[:, ARM - 1]
    if "base_action" in root:
        values = root.array("base_action")
        if values.ndim != 2 or not np.isfinite(values).all():
            raise EpisodeError(f"{root.name}: base_action is not (T, n) finite numbers")
        yield "robot_commands.base", "base_action", values.astype(np.float32)


@contextmanager
def _opened(file: Path) -> Iterator[Foreign]:
    import h5py

    try:
        opened = h5py.File(file, "r")
    except OSError as error:
        raise EpisodeError(
            f"{file.name} is not a readable HDF5 file: {printable(error)}"
        ) from error
    with opened:
        try:
            yield Foreign(opened, file.name)
        except EpisodeError as error:
            if str(error).startswith(file.name):
                raise
            raise EpisodeError(f"{file.name}: {error}") from error
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            # h5py raises several classes for damaged data.
            raise EpisodeError(f"{file.name} cannot be read: {printable(error)}") from error


def _decoded(row: NDArray[np.uint8], where: str) -> NDArray[np.uint8]:
    """A JPEG file, padded with zeros, as ``(H, W, 3)``."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(row.tobytes()), formats=["JPEG"]) as image:
            if image.width * image.height > MOST_PIXELS:
                raise EpisodeError(f"{where} has {image.width} x {image.height} pixels: too many")
            return np.asarray(image.convert("RGB"))
    except EpisodeError:
        raise
    except Exception as error:  # Pillow raises many classes for damaged files
        raise EpisodeError(f"{where} is not a JPEG file") from error


def _number(file: Path) -> tuple[int, str]:
    """Sort episode_10 after episode_9."""
    digits = file.stem.rsplit("_", 1)[-1]
    number = digits.isascii() and digits.isdecimal() and len(digits) < 19
    return (int(digits) if number else -1, file.name)
