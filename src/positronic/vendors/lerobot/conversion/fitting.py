"""Flags of a codec that fits a recording, from the names and shapes of its signals.

They are only proposed, never taken: what a signal means is not certain from its name.
"""

import shlex
from collections.abc import Mapping, Sequence

from foundation.errors import FoundationError
from positronic.dataset import Episode
from positronic.dataset.conventions import other_name
from positronic.dataset.signal import Signal
from positronic.vendors.lerobot.codec_flags import CAMERAS, camera_names

POSE, JOINTS = "robot_commands.pose", "robot_commands.joints"
EE_POSE, Q, GRIP, TARGET_GRIP = "robot_state.ee_pose", "robot_state.q", "grip", "target_grip"
# Names of commands and states that other recorders use.
_COMMANDS = ("action", "actions", "joint_commands", "commanded_joints")
_STATES = ("observation.state", "state", "joint_states", "q", "qpos")


def fitting_flags(episode: Episode) -> str:
    """Return the flags of a codec that reads what the recording has; nothing if none would."""
    try:
        signals = dict(episode.signals)
        numeric = {name: s.shape for name, s in signals.items() if s.kind == "numeric"}
        cameras = [name for name, signal in signals.items() if _is_camera(signal)]
    except FoundationError:
        return ""
    words = _two_arms(numeric) or _one_arm(numeric, bool(cameras))
    if not words:
        return ""
    if cameras or not words[0].endswith("_state"):
        words = [*words, *_cameras(cameras)]
    first, *rest = words
    return " ".join(
        [f"--dataset.codec=.{first}", *(shlex.quote(f"--dataset.codec.{word}") for word in rest)]
    )


def _is_camera(signal: Signal) -> bool:
    return signal.kind == "video" or (len(signal.shape) == 3 and signal.shape[2] == 3)


def _cameras(signals: Sequence[str]) -> list[str]:
    if set(signals) == set(CAMERAS.values()):
        return []  # the codec's own
    named = camera_names(signals)
    return ["cameras=" + (",".join(f"{name}:{s}" for name, s in named.items()) or "none")]


def _one_arm(numeric: Mapping[str, tuple[int, ...]], seen: bool) -> list[str]:
    """Return name and flags of a codec for one arm."""
    joints = _command(numeric, JOINTS)
    if joints is None and _command(numeric, POSE) == POSE and TARGET_GRIP in numeric:
        state = _state(numeric, (EE_POSE, Q), (EE_POSE, GRIP))
        return ["eepose_absolute", *state] if state is not None else []
    joints = joints or _by_another_name(numeric, _COMMANDS)
    if joints is None:
        return []
    other = _by_another_name(numeric, _STATES)
    state = _state(numeric, (Q, EE_POSE, *([other] if other else [])), (Q, GRIP))
    if state is None:
        return []
    words = ["joints" if seen else "joints_state", *state]
    if joints != JOINTS:
        words.append(f"command={joints}")
    return words if TARGET_GRIP in numeric else [*words, "grip=None"]


def _state(
    numeric: Mapping[str, tuple[int, ...]], bodies: Sequence[str], usual: tuple[str, ...]
) -> list[str] | None:
    """Return the flag of the state, nothing for the codec's own; None if there is none."""
    body = next((name for name in bodies if name in numeric), None)
    if body is None:
        return None
    state = (body, GRIP) if GRIP in numeric else (body,)
    return [] if state == usual else [f"state={','.join(state)}"]


def _command(numeric: Mapping[str, tuple[int, ...]], name: str) -> str | None:
    return name if name in numeric or other_name(name) in numeric else None


def _by_another_name(numeric: Mapping[str, tuple[int, ...]], known: Sequence[str]) -> str | None:
    vectors = [name for name, shape in numeric.items() if len(shape) == 1]
    return next(
        (name for end in known for name in vectors if name == end or name.endswith(f".{end}")), None
    )


def _two_arms(numeric: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return name and flags of a codec for two arms, told apart by what stands before the names."""
    for codec, command, body in (
        ("bimanual_joints", JOINTS, Q),
        ("bimanual_eepose", POSE, EE_POSE),
    ):
        arms = [name.removesuffix(command) for name in numeric if name.endswith(f".{command}")]
        if len(arms) != 2 or any(f"{arm}{body}" not in numeric for arm in arms):
            continue
        gripped = all(f"{arm}{TARGET_GRIP}" in numeric for arm in arms)
        if not gripped and command == POSE:
            continue
        words = [codec]
        if set(arms) == {"left.", "right."}:
            arms = ["left.", "right."]
        else:
            words.append(f"arms={','.join(arms)}")
        if any(f"{arm}{GRIP}" not in numeric for arm in arms):
            words.append(f"state={body}")
        return words if gripped else [*words, "grip=None"]
    return []
