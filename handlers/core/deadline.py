"""Request deadlines: how old a request is, how long its client waits, and from which headers that is read.

REST requests carry HTTP headers. TorchServe's gRPC passes no metadata on, so `Predictions` calls carry the same names
as reserved keys of their input map.
"""

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handlers.core.errors import InvalidRequest

TIMEOUT_HEADER = "x-request-timeout"
"""Seconds that the client waits for the answer, counted from the request's start."""
START_HEADER = "x-request-start"
"""Unix time in seconds at which the request reached the proxy or left the client."""
EDGE_ID_HEADER = "x-edge-id"
REQUEST_ID_HEADER = "x-request-id"
RESERVED_KEYS = (TIMEOUT_HEADER, START_HEADER, EDGE_ID_HEADER, REQUEST_ID_HEADER)

MAX_CLOCK_SKEW_S = 5.0
MAX_AGE_S = 3600.0
MAX_TIMEOUT_S = 1e6
_MAX_REQUEST_ID = 64
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{0,9})?")
_EDGE_ID = re.compile(r"[0-9a-f]{32}")
_NOT_IN_REQUEST_ID = re.compile(r"[^A-Za-z0-9._:/=+@-]")


@dataclass(frozen=True)
class Arrival:
    """When a request started and until when its answer is of use, in `time.monotonic()` seconds.

    Attributes:
        started: When the request reached the proxy, or this worker if that is not known.
        deadline: When its client stops waiting; None if the client did not say.
        edge_id: The proxy's id of the request, 32 hexadecimal digits; "" without a proxy.
        request_id: The client's id, safe to log; "" if there is none.
        error: Why the timeout of the request is not valid.
        has_start: Whether the request itself says when it started.
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


def read_arrival(values: Mapping[str, str], now: float | None = None, wall: float | None = None) -> Arrival:
    """Read the `RESERVED_KEYS` of one request.

    Args:
        values: Lower-case names and their text. An empty text counts as absent.
        now: The time of arrival in this worker, in `time.monotonic()` seconds.
        wall: The same moment in Unix seconds.

    A start that lies in the future or is older than an hour is ignored. An invalid timeout is in `Arrival.error`.
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
        error = InvalidRequest(invalid.message)  # a new one holds no traceback
    edge_id = values.get(EDGE_ID_HEADER, "").strip().lower()
    request_id = _NOT_IN_REQUEST_ID.sub("", values.get(REQUEST_ID_HEADER, "")[: 2 * _MAX_REQUEST_ID])
    return Arrival(
        started=now - age,
        deadline=deadline,
        edge_id=edge_id if _EDGE_ID.fullmatch(edge_id) else "",
        request_id=request_id[:_MAX_REQUEST_ID],
        error=error,
        has_start=known_age is not None,
    )


def parse_timeout(text: str) -> float | None:
    """Seconds, or None for an empty text. Raises InvalidRequest."""
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
    """A text that `parse_timeout` reads; what is longer than MAX_TIMEOUT_S is shortened to that."""
    return f"{min(seconds, MAX_TIMEOUT_S):.9f}"


def reserved_values(
    fields: Mapping[str, Any], headers: Mapping[str, Any], is_grpc: bool
) -> tuple[dict[str, str], Mapping[str, Any]]:
    """The reserved values of a request, and its fields without them."""
    if not is_grpc:
        found = {
            name.lower(): value
            for name, value in headers.items()
            if isinstance(value, str) and name.lower() in RESERVED_KEYS
        }
        return found, fields
    if not any(name in fields for name in RESERVED_KEYS):
        return {}, fields
    found = {name: _text(fields[name]) for name in RESERVED_KEYS if name in fields}
    return found, {name: value for name, value in fields.items() if name not in RESERVED_KEYS}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else bytes(value[:256]).decode("ascii", "replace")


def _age(text: str, wall: float) -> float | None:
    """Seconds since the start that `text` names; None if it names none that is plausible."""
    text = text.strip().removeprefix("t=")
    if not _NUMBER.fullmatch(text):
        return None
    age = wall - float(text)
    return max(0.0, age) if -MAX_CLOCK_SKEW_S <= age <= MAX_AGE_S else None
