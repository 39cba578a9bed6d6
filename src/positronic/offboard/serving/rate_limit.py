"""How often one session may ask."""

import time

from positronic.offboard.serving.answer import TooFast


class RateLimit:
    """Lets ``rate`` requests a second through, and as many at once after a pause.

    The generic cell rate algorithm: one number, the time at which all requests so far would be
    due at an even pace.
    """

    def __init__(self, rate: float) -> None:
        """Allow ``rate`` requests a second; 0 is any number."""
        self._rate = rate
        self._due = 0.0

    def __call__(self) -> None:
        """Count one request.

        Raises:
            TooFast: There were too many; this one does not count.
        """
        if not self._rate:
            return
        now = time.monotonic()
        due = max(self._due, now) + 1 / self._rate
        # A rate below 1/s lets one request through at once, not none.
        wait = due - now - max(1.0, 1 / self._rate)
        if wait > 1e-9:
            raise TooFast(f"more than {self._rate:g} requests a second; ask less often", wait)
        self._due = due
