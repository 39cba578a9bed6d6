"""Policy and session protocols: two small interfaces, implemented locally or by a server."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

Action = dict[str, Any]
"""One command for the robot by name: ``robot_command``, ``target_grip``."""


@runtime_checkable
class Session(Protocol):
    """One episode of one robot with a policy. Sessions share no state; a new one is a reset."""

    @property
    def meta(self) -> dict[str, Any]:
        """Metadata of the policy: ``type``, ``action_fps``, ``contract`` and so on."""

    def infer(self, obs: Mapping[str, Any]) -> list[Action]:
        """Infer a chunk of actions from one observation.

        Args:
            obs: Raw signals by name (``robot_state.ee_pose``, ``grip``, ``image.wrist``, ...)
                and ``task``.

        Returns:
            Actions in time order. Each has ``robot_command`` (a mapping with ``type``),
            ``target_grip`` (1 = open) and usually ``timestamp``: seconds after the observation at
            which it is due.

        Raises:
            PositronicError: The observation is invalid; the session can go on.
            ServerGone: The session is over.
        """

    def close(self) -> None:
        """End the session. Further calls have no effect."""


@runtime_checkable
class Policy(Protocol):
    """Something that can control a robot: a loaded checkpoint, or a server that has one."""

    @property
    def meta(self) -> dict[str, Any]:
        """Metadata of the policy, the same as that of its sessions."""

    def new_session(self, context: Mapping[str, Any] | None = None) -> Session:
        """Start an episode; ``context`` (such as ``task``) is added to every observation."""

    def close(self) -> None:
        """Release the policy's resources. Further calls have no effect."""
