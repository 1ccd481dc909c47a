"""Changes that outlive the front end: the supervisor has to have noted them before it may be killed."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from torchserve_models.client.calls import Pause, Plan, RestCall, path_of, read_json
from torchserve_models.client.errors import TorchServeError

T = TypeVar("T")

LIMIT_S = 3.0
"""The supervisor looks once a second, and at once when TorchServe logs a change."""
POLL_S = 0.05
TIMEOUT_S = 2.0

Times = tuple[float, float]
"""The supervisor's clock: now, and the time of which it has recorded what is served, in seconds."""


def recorded(plan: Plan[T], clock: Callable[[], float] = time.monotonic) -> Plan[T]:
    """Make the change, then wait until the supervisor would restore it.

    Where no supervisor says what it has recorded, or not within LIMIT_S, the change is made all the same.
    """
    result = yield from plan
    end = clock() + LIMIT_S
    times: Times | None = yield from _times()
    if times is not None:
        changed, _ = times
        while times is not None and times[1] < changed and clock() < end:
            yield Pause(POLL_S)
            times = yield from _times()
    return result


def _times() -> Plan[Times | None]:
    try:
        times: Times | None = yield RestCall(
            "health", "GET", path_of("recorded"), _read, resend="never", limit=TIMEOUT_S
        )
    except TorchServeError:
        return None
    return times


def _read(body: bytes) -> Times | None:
    value: Any = read_json(body)
    try:
        return float(value["now"]), float(value["recorded"])
    except (TypeError, KeyError, ValueError):
        return None
