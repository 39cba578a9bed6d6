"""``positronic-import robomimic``: human demonstrations from a robomimic HDF5 file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import configuronic as cfn

from foundation import storage
from foundation.errors import MissingDependency, StorageError, UsageError
from foundation.files import sha256_of
from foundation.text import printable
from positronic.errors import DatasetError, EpisodeError

if TYPE_CHECKING:
    from positronic.dataset import EpisodeWriter
    from positronic.importers.demo import Demo


# As robosuite names them.
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
    """Turn a robomimic/robosuite HDF5 file into raw episodes, one for each demo.

    Cameras, joints, end-effector pose, gripper, rewards and simulator states are kept; the
    controller's increments become absolute end-effector targets where the file says how. A demo
    that cannot be read is named and left out; the others are imported, and the exit status is 1.

    Args:
        file: The HDF5 file; local or s3://bucket/key.
        output_dir: The dataset to write, local or s3://bucket/key; it must be empty or new unless
            --append.
        task: What the robot is told to do; by default a sentence for the file's environment.
        exterior_camera: The camera in the file that becomes image.exterior.
        wrist_camera: The camera in the file that becomes image.wrist.
        flip_images: Turn images upside down: for files with robosuite's unflipped renderings.
        append: Add to a dataset that exists; demos of this file that it holds are not repeated.
    """
    source = storage.local(file) if not storage.is_remote(file) else storage.fetch_file(file)
    if not source.is_file():
        raise StorageError(f"there is no file {source}; give the path of a robomimic .hdf5 file")
    if exterior_camera == wrist_camera:
        raise UsageError(f"--exterior_camera and --wrist_camera are both {wrist_camera!r}")
    cameras = {exterior_camera: "image.exterior", wrist_camera: "image.wrist"}
    with storage.output_directory(output_dir, append=append) as root:
        return _import(source, root, storage.join(output_dir), task, cameras, flip_images, append)


def _import(
    path: Path,
    root: Path,
    place: str,
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
    refused: list[str] = []
    imported = steps = 0
    signals: dict[str, None] = {}
    try:
        source = h5py.File(path, "r")
    except OSError as error:
        raise DatasetError(
            f"{path} is not a readable HDF5 file ({printable(error)}); it may be cut off: "
            "fetch it again"
        ) from error
    with source:
        setup = read_setup(source, cameras, flip_images)
        if task is None and setup.env_name not in TASKS:
            raise UsageError(
                f"there is no default sentence for {setup.env_name}; give --task='Do this.'"
            )
        digest = sha256_of(path)
        statics = {
            "task": task if task is not None else TASKS[setup.env_name],
            "source.file": path.name,
            "source.sha256": digest,
        }
        names = sorted(Foreign(source, path.name).group("data"), key=_number)
        present = _present(root, digest) if append else set()
        fresh = [name for name in names if name not in present]
        if not names:
            raise DatasetError(f"{path} holds no demos; give a file with data/demo_0 and so on")
        _require_cameras(source, path.name, names[0], cameras)
        writer = None
        for name in track(fresh, total=len(fresh), desc="importing", unit="demo"):
            try:
                demo = read_demo(source, name, setup)
                # Only now: a file without one good demo leaves no empty dataset behind.
                writer = writer or DatasetWriter(root)
                with writer.new_episode() as episode:
                    _write(episode, demo, setup.control_fps, statics, name)
            except EpisodeError as error:
                refused.append(str(error))
                continue
            imported += 1
            steps += len(demo.signals["robomimic.actions"])
            signals |= dict.fromkeys(demo.signals)
    for line in refused:
        print(f"left out: {line}")
    if present:
        print(f"already in {place}: {len(names) - len(fresh)} demos of this file")
    if fresh and not imported:
        raise DatasetError(f"none of the {len(fresh)} demos of {path} could be read: {refused[0]}")
    print(f"{imported} of {len(fresh)} demos, {steps} steps at {setup.control_fps} Hz, in {place}")
    print(f"task: {statics['task']}")
    print(f"signals: {printable(', '.join(sorted(signals)), 2000)}")
    for mask, demos in sorted(setup.masks.items()):
        print(f"mask.{printable(mask)}: {len(demos & set(names))} demos")
    if setup.controller is None:
        print(f"no robot_commands.pose, only robomimic.actions: {setup.not_absolute}")
    return 1 if refused else 0


def _write(
    episode: "EpisodeWriter", demo: "Demo", fps: int, statics: dict[str, Any], name: str
) -> None:
    """Write row i of each signal at ``i / fps`` seconds; EpisodeError for what has no place."""
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
    """Refuse a camera that was named and is not in the file; a file may have none at all."""
    from positronic.importers.foreign import Foreign

    try:
        obs = Foreign(source, file).group("data").group(demo).group("obs")
        there = [key.removesuffix("_image") for key in obs if key.endswith("_image")]
    except (EpisodeError, DatasetError):
        return  # what is wrong with it is told when it is read
    for camera in cameras:
        if camera not in (*there, EXTERIOR_CAMERA, WRIST_CAMERA):
            raise UsageError(
                f"{file} has no camera {printable(camera, 60)!r}; it has "
                f"{printable(', '.join(there), 300) or 'none'}"
            )


def _present(root: Path, digest: str) -> set[str]:
    """Names of the demos of the file with this digest that the dataset already holds."""
    from positronic.dataset import LocalDataset
    from positronic.dataset.subsets import described

    if not root.is_dir() or not any(root.iterdir()):
        return set()
    try:
        static = [values for values in described(LocalDataset(root)).values() if values is not None]
    except DatasetError:  # nothing complete in it yet, as after an interrupted start
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
