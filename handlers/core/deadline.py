"""Read a request's start time and timeout.

REST requests carry these values in HTTP headers. TorchServe does not forward gRPC metadata, so `Predictions` calls
carry them as reserved keys of their input map.
"""

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handlers.core.errors import InvalidRequest

TIMEOUT_HEADER = "x-request-timeout"
"""Header with the seconds that the client waits for the answer, counted from the start of the request."""
START_HEADER = "x-request-start"
"""Header with the Unix time in seconds at which the client sent the request or the proxy received it."""
EDGE_ID_HEADER = "x-edge-id"
REQUEST_ID_HEADER = "x-request-id"
RESERVED_KEYS = (TIMEOUT_HEADER, START_HEADER, EDGE_ID_HEADER, REQUEST_ID_HEADER)

MAX_CLOCK_SKEW_S = 5.0
MAX_AGE_S = 3600.0
MAX_TIMEOUT_S = 1e6
_MAX_REQUEST_ID_LENGTH = 64
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{0,9})?")
_EDGE_ID = re.compile(r"[0-9a-f]{32}")
_NOT_IN_REQUEST_ID = re.compile(r"[^A-Za-z0-9._:/=+@-]")


@dataclass(frozen=True)
class RequestTiming:
    """The start time, deadline and ids of a request. Times are `time.monotonic()` seconds.

    Attributes:
        started: When the request started; the time of its arrival in this worker if the request has no start time.
        deadline: When the client stops waiting; None if the request has no timeout.
        edge_id: The proxy's id of the request, 32 hexadecimal digits; "" without a proxy.
        request_id: The client's id of the request, safe to log; "" if the client sent none.
        error: The error if the timeout is invalid, otherwise None.
        has_start: Whether the request carries its start time.
    """

    started: float
    deadline: float | None = None
    edge_id: str = ""
    request_id: str = ""
    error: InvalidRequest | None = None
    has_start: bool = False

    def age(self, now: float) -> float:
        return now - self.started

    def has_expired(self, now: float) -> bool:
        return self.deadline is not None and now >= self.deadline


def read_timing(
    values: Mapping[str, str], now: float | None = None, wall: float | None = None
) -> RequestTiming:
    """Read the `RESERVED_KEYS` of one request.

    Args:
        values: Values by lower-case name. An empty value means that the key is absent.
        now: The time of arrival in this worker, in `time.monotonic()` seconds.
        wall: The same time in Unix seconds.

    Returns:
        The timing. A start time more than MAX_CLOCK_SKEW_S in the future or MAX_AGE_S in the past is ignored. An
        invalid timeout sets `RequestTiming.error`.
    """
    now = time.monotonic() if now is None else now
    wall = time.time() if wall is None else wall
    known_age = _age(values.get(START_HEADER, ""), wall)
    age = known_age or 0.0
    error, deadline = None, None
    try:
        timeout = parse_timeout(values.get(TIMEOUT_HEADER, ""))
        if timeout is not None:
            deadline = now - age + timeout
    except InvalidRequest as invalid:
        error = InvalidRequest(invalid.message)  # a new error without a traceback
    edge_id = values.get(EDGE_ID_HEADER, "").strip().lower()
    request_id = _NOT_IN_REQUEST_ID.sub("", values.get(REQUEST_ID_HEADER, "")[: 2 * _MAX_REQUEST_ID_LENGTH])
    return RequestTiming(
        started=now - age,
        deadline=deadline,
        edge_id=edge_id if _EDGE_ID.fullmatch(edge_id) else "",
        request_id=request_id[:_MAX_REQUEST_ID_LENGTH],
        error=error,
        has_start=known_age is not None,
    )


def parse_timeout(text: str) -> float | None:
    """Parse a timeout in seconds. Return None for an empty text. Raises InvalidRequest."""
    text = text.strip()
    if not text:
        return None
    seconds = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not 0 <= seconds <= MAX_TIMEOUT_S:
        raise InvalidRequest(
            f"'X-Request-Timeout' must be a number of seconds from 0 to 1000000, not {text[:20]!r}"
        )
    return seconds


def format_timeout(seconds: float) -> str:
    """Format a timeout in seconds for `parse_timeout`. Longer timeouts become MAX_TIMEOUT_S."""
    return f"{min(seconds, MAX_TIMEOUT_S):.9f}"


def reserved_values(
    fields: Mapping[str, Any], headers: Mapping[str, Any], is_grpc: bool
) -> tuple[dict[str, str], Mapping[str, Any]]:
    """Split a request into its reserved values and its other fields."""
    if not is_grpc:
        reserved = {
            name.lower(): value
            for name, value in headers.items()
            if isinstance(value, str) and name.lower() in RESERVED_KEYS
        }
        return reserved, fields
    if not any(name in fields for name in RESERVED_KEYS):
        return {}, fields
    reserved = {name: _text(fields[name]) for name in RESERVED_KEYS if name in fields}
    return reserved, {name: value for name, value in fields.items() if name not in RESERVED_KEYS}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else bytes(value[:256]).decode("ascii", "replace")


def _age(text: str, wall: float) -> float | None:
    """Return the seconds since the start time in `text`; None if the time is implausible."""
    text = text.strip().removeprefix("t=")
    if not _NUMBER.fullmatch(text):
        return None
    age = wall - float(text)
    return max(0.0, age) if -MAX_CLOCK_SKEW_S <= age <= MAX_AGE_S else None
