"""``positronic-import robomimic``: human demonstrations from a robomimic HDF5 file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import configuronic as cfn

from foundation import storage
from foundation.console import say_made
from foundation.errors import MissingDependency, StorageError, UsageError
from foundation.files import sha256_of
from foundation.text import printable
from positronic.cli.following import say_convert
from positronic.errors import DatasetError, EpisodeError

if TYPE_CHECKING:
    from positronic.dataset import EpisodeWriter
    from positronic.importers.demo import Demo


# Robosuite's names.
EXTERIOR_CAMERA, WRIST_CAMERA = "agentview", "robot0_eye_in_hand"


@cfn.config()
def robomimic(
    file: str,
    output_dir: str,
    task: str | None = None,
    exterior_camera: str = EXTERIOR_CAMERA,
    wrist_camera: str = WRIST_CAMERA,
    flip_images: bool = False,
    append: bool = False,
) -> int:
    """Convert a robomimic/robosuite HDF5 file to raw episodes, one per demo.

    Cameras, joints, end-effector pose, gripper, rewards and simulator states are kept; the
    controller's increments become absolute end-effector targets if the file describes its
    controller. A demo that cannot be read is reported and skipped; the others are imported, and the
    exit status is 1.

    Example:
        positronic-import robomimic demo.hdf5 --output_dir=RAW

    Args:
        file: The HDF5 file; local or s3://bucket/key.
        output_dir: The dataset to write, local or s3://bucket/key; must be new or empty unless
            --append.
        task: Task of the episodes, in words; by default a sentence for the file's environment.
        exterior_camera: The camera in the file to import as image.exterior.
        wrist_camera: The camera in the file to import as image.wrist.
        flip_images: Flip images vertically: for files with robosuite's unflipped renderings.
        append: Add to an existing dataset; demos of this file that it already has are skipped.
    """
    source = storage.local(file) if not storage.is_remote(file) else storage.fetch_file(file)
    if not source.is_file():
        raise StorageError(f"file not found: {source}; give the path of a robomimic .hdf5 file")
    if exterior_camera == wrist_camera:
        raise UsageError(f"--exterior_camera and --wrist_camera are both {wrist_camera!r}")
    cameras = {exterior_camera: "image.exterior", wrist_camera: "image.wrist"}
    with storage.output_directory(output_dir, append=append) as root:
        return _import(source, root, storage.join(output_dir), task, cameras, flip_images, append)


def _import(
    path: Path,
    root: Path,
    output: str,
    task: str | None,
    cameras: dict[str, str],
    flip_images: bool,
    append: bool,
) -> int:
    try:
        import h5py

        from positronic.dataset import DatasetWriter
    except ImportError as error:
        raise MissingDependency(
            f"{error.name} is not installed; pip install 'positronic-lightning[data]'"
        ) from error
    from foundation.progress import track
    from positronic.importers.demo import read_demo, read_setup
    from positronic.importers.foreign import Foreign
    from positronic.importers.robosuite import TASKS

    if not append and root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise StorageError(
            f"{root} exists and is not empty; choose another --output_dir, or add to it with "
            "--append=True"
        )
    skipped: list[str] = []
    imported = steps = 0
    signals: dict[str, None] = {}
    try:
        source = h5py.File(path, "r")
    except OSError as error:
        raise DatasetError(
            f"{path} is not a readable HDF5 file ({printable(error)}); it may be truncated: "
            "fetch it again"
        ) from error
    with source:
        setup = read_setup(source, cameras, flip_images)
        if task is None and setup.env_name not in TASKS:
            raise UsageError(
                f"no default task for the environment {setup.env_name}; give --task='Do this.'"
            )
        digest = sha256_of(path)
        statics = {
            "task": task if task is not None else TASKS[setup.env_name],
            "source.file": path.name,
            "source.sha256": digest,
        }
        names = sorted(Foreign(source, path.name).group("data"), key=_number)
        present = _imported(root, digest) if append else set()
        fresh = [name for name in names if name not in present]
        if not names:
            raise DatasetError(f"{path} has no demos; give a file with data/demo_0 and so on")
        _require_cameras(source, path.name, names[0], cameras)
        writer = None
        for name in track(fresh, total=len(fresh), desc="importing", unit="demo"):
            try:
                demo = read_demo(source, name, setup)
                # Created late, so that a file without a readable demo leaves no empty dataset.
                writer = writer or DatasetWriter(root)
                with writer.new_episode() as episode:
                    _write(episode, demo, setup.control_fps, statics, name)
            except EpisodeError as error:
                skipped.append(str(error))
                continue
            imported += 1
            steps += len(demo.signals["robomimic.actions"])
            signals |= dict.fromkeys(demo.signals)
    for line in skipped:
        print(f"skipped: {line}")
    if present:
        print(f"already in {output}: {len(names) - len(fresh)} demos of this file")
    if fresh and not imported:
        raise DatasetError(f"none of the {len(fresh)} demos of {path} could be read: {skipped[0]}")
    print(f"{imported} of {len(fresh)} demos, {steps} steps at {setup.control_fps} Hz")
    print(f"task: {statics['task']}")
    print(f"signals: {printable(', '.join(sorted(signals)), 2000)}")
    for mask, demos in sorted(setup.masks.items()):
        print(f"mask.{printable(mask)}: {len(demos & set(names))} demos")
    if setup.controller is None:
        print(f"no robot_commands.pose, only robomimic.actions: {setup.not_absolute}")
    say_made("recordings", output)
    if {"robot_commands.pose", "image.wrist", "image.exterior"} <= {*signals}:
        say_convert(output, setup.control_fps, cameras=True)
    return 1 if skipped else 0


def _write(
    episode: "EpisodeWriter", demo: "Demo", fps: int, statics: dict[str, Any], name: str
) -> None:
    """Write row i of each signal at ``i / fps`` seconds; EpisodeError for unsupported values."""
    try:
        for key, static in (demo.static | statics).items():
            episode.set_static(key, static)
        for key, rows in demo.signals.items():
            for index, value in enumerate(rows):
                episode.append(key, value, index * 10**9 // fps)
    except ValueError as error:
        raise EpisodeError(
            f"{printable(name)} cannot be recorded: {printable(error)}; drop this demo"
        ) from error


def _require_cameras(source: Any, file: str, demo: str, cameras: dict[str, str]) -> None:
    """Check that cameras given by the user are in the file; the default ones may be missing."""
    from positronic.importers.foreign import Foreign

    try:
        obs = Foreign(source, file).group("data").group(demo).group("obs")
        there = [key.removesuffix("_image") for key in obs if key.endswith("_image")]
    except (EpisodeError, DatasetError):
        return  # read_demo reports the error
    for camera in cameras:
        if camera not in (*there, EXTERIOR_CAMERA, WRIST_CAMERA):
            raise UsageError(
                f"{file} has no camera {printable(camera, 60)!r}; it has "
                f"{printable(', '.join(there), 300) or 'none'}"
            )


def _imported(root: Path, digest: str) -> set[str]:
    """Names of the demos that the dataset already has of the file with this digest."""
    from positronic.dataset import LocalDataset
    from positronic.dataset.subsets import described

    if not root.is_dir() or not any(root.iterdir()):
        return set()
    try:
        static = [values for values in described(LocalDataset(root)).values() if values is not None]
    except DatasetError:  # no finished episode yet, e.g. after an interrupted run
        return set()
    return {
        str(values["robomimic.demo"])
        for values in static
        if values.get("source.sha256") == digest and "robomimic.demo" in values
    }


def _number(name: str) -> tuple[int, str]:
    """Sort demo_10 after demo_9."""
    digits = name.rsplit("_", 1)[-1]
    number = digits.isascii() and digits.isdecimal() and len(digits) < 19
    return (int(digits) if number else -1, name)
