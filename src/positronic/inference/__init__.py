"""Rollouts of a policy in an environment: harness, recording, statistics and report.

``rollout`` runs one episode, ``run`` runs many and writes the results, ``report`` makes a page of
them. Importing this package is fast: MuJoCo, PyAV and pyarrow load when a rollout starts.
"""

__all__: list[str] = []
