"""Rollouts of a policy in an environment: harness, recording, statistics and report.

``rollout`` plays one episode, ``run`` plays many and writes down what happened, ``report`` draws
it. Importing this package is cheap: MuJoCo, PyAV and pyarrow load when a rollout starts.
"""

__all__: list[str] = []
