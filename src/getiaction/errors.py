"""The one error that :mod:`getiaction` raises on purpose.

The message is one line: what was wrong, what was expected, how to mend it.
"""


class GetiactionError(Exception):
    """A configuration, dataset or policy that cannot be used as asked."""
