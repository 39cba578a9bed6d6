"""What is tried again, for how long, and what is said when it was in vain."""

import random
import time
from collections.abc import Callable

from getiaction.errors import GetiactionError
from getiaction.text import printable

ATTEMPTS = 5
FIRST_PAUSE_S = 0.5
# Answers that mean "later", besides everything from 500.
LATER = {408, 409, 425, 429}
LATER_CODES = {"BadDigest", "RequestTimeout", "RequestTimeTooSkewed", "SlowDown", "Throttling"}


class NotThere(GetiactionError):
    """There is no such object, prefix or bucket."""


class Forbidden(GetiactionError):
    """It may not be done with these credentials."""


class Overtaken(GetiactionError):
    """The object is not what it was a moment ago: someone else has written it."""


class Garbled(OSError):
    """What arrived is not what was sent."""


def patiently[T](action: Callable[[], T], failed: str, reached: Callable[[], int] = lambda: 0) -> T:
    """Do ``action``, again after growing pauses while S3 is away, busy or cut off.

    Args:
        action: Called until it returns.
        failed: How the error's line begins.
        reached: How far the action has come; attempts that came further do not count.

    Raises:
        NotThere: what it asks for does not exist.
        Overtaken: a condition on the object's state does not hold.
        GetiactionError: it may not be done, or could not be, in ``ATTEMPTS`` attempts.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    attempt, furthest = 0, reached()
    while True:
        try:
            return action()
        except (OSError, BotoCoreError, ClientError) as error:
            refused = _refusal(error, failed)
            if refused is not None:
                raise refused from error
            attempt = 1 if reached() > furthest else attempt + 1
            furthest = max(furthest, reached())
            if attempt >= ATTEMPTS:
                line = f"{failed}, tried {ATTEMPTS} times: {first_line(error)}"
                raise GetiactionError(line) from error
            time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1) * (1 + random.random()))


def first_line(error: BaseException) -> str:
    """The first line of an error's message, which may have many or none, and another's words."""
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return printable(first, 1000)


def _refusal(error: Exception, failed: str) -> GetiactionError | None:
    """What to raise at once; None where another attempt may help."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        ParamValidationError,
        PartialCredentialsError,
        TokenRetrievalError,
    )

    line = f"{failed}: {first_line(error)}"
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return GetiactionError(
            f"{failed}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE, or AWS_NO_SIGN_REQUEST=1 for what everyone may read"
        )
    if isinstance(error, ParamValidationError | TokenRetrievalError):
        return GetiactionError(line)
    if not isinstance(error, ClientError):
        passing = isinstance(error, BotoCoreError | Garbled | ConnectionError | TimeoutError)
        # The local disk does not get better by waiting.
        return None if passing else GetiactionError(line)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(error.response.get("Error", {}).get("Code", ""))
    if status >= 500 and status != 501:
        return None
    if status in LATER or code in LATER_CODES:
        return None
    if status == 412:
        return Overtaken(f"{failed}: someone else has written it meanwhile")
    if code == "NoSuchBucket":
        return NotThere(f"{failed}: its bucket does not exist")
    if status == 404:
        return NotThere(f"{failed}: it does not exist")
    return Forbidden(line) if status in (401, 403) else GetiactionError(line)
