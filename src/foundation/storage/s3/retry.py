"""Retry policy for S3: transient errors, growing pauses, and the final error message."""

import random
import time
from collections.abc import Callable

from foundation.errors import Forbidden, IntegrityError, NotFound, PreconditionFailed, StorageError
from foundation.text import printable

ATTEMPTS = 5
FIRST_PAUSE_S = 0.5
# Status codes to retry, besides all from 500.
LATER = {408, 409, 425, 429}
LATER_CODES = {"BadDigest", "RequestTimeout", "RequestTimeTooSkewed", "SlowDown", "Throttling"}


class ChecksumMismatch(OSError):
    """The received content is not what was sent."""


def patiently[T](action: Callable[[], T], failed: str, reached: Callable[[], int] = lambda: 0) -> T:
    """Call ``action``, and retry with growing pauses while S3 is unreachable or busy.

    Args:
        action: Called until it returns.
        failed: Beginning of the error message.
        reached: Returns the progress of the action; attempts that made progress do not count.

    Raises:
        NotFound: the object or bucket does not exist.
        PreconditionFailed: a condition on the object's state does not hold.
        IntegrityError: the digest does not match, in ``ATTEMPTS`` attempts.
        StorageError: it is not allowed, or failed in ``ATTEMPTS`` attempts.
    """
    from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError

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
                damaged = isinstance(error, ChecksumMismatch | FlexibleChecksumError)
                raise (IntegrityError if damaged else StorageError)(line) from error
            time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1) * (1 + random.random()))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, printable; its type's name if it is empty."""
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return printable(first, 1000)


def _refusal(error: Exception, failed: str) -> StorageError | None:
    """Return the error to raise at once; None if a retry may help."""
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
        return StorageError(
            f"{failed}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE, or AWS_NO_SIGN_REQUEST=1 for what everyone may read"
        )
    if isinstance(error, ParamValidationError | TokenRetrievalError):
        return StorageError(line)
    if not isinstance(error, ClientError):
        transient = BotoCoreError | ChecksumMismatch | ConnectionError | TimeoutError
        # Errors of the local disk are not transient.
        return None if isinstance(error, transient) else StorageError(line)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(error.response.get("Error", {}).get("Code", ""))
    if status >= 500 and status != 501:
        return None
    if status in LATER or code in LATER_CODES:
        return None
    if status == 412:
        return PreconditionFailed(f"{failed}: someone else has written it meanwhile")
    if code == "NoSuchBucket":
        return NotFound(f"{failed}: its bucket does not exist")
    if status == 404:
        return NotFound(f"{failed}: it does not exist")
    return Forbidden(line) if status in (401, 403) else StorageError(line)
