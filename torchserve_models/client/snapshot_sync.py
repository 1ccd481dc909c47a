"""Wait until the supervisor has recorded a change, so that the change survives a restart of the front end."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from torchserve_models.client.call_types import CallSequence, Pause, RestCall, build_path, read_json
from torchserve_models.client.errors import TorchServeError

T = TypeVar("T")

RECORD_TIMEOUT_S = 3.0
"""The supervisor records once a second, and at once when TorchServe logs a change."""
POLL_INTERVAL_S = 0.05
ANSWER_TIMEOUT_S = 2.0

Times = tuple[float, float]
"""The supervisor's clock, and the time of the state that it has recorded, in Unix seconds."""


def run_and_await_snapshot(
    change: CallSequence[T], clock: Callable[[], float] = time.monotonic
) -> CallSequence[T]:
    """Run a change, then wait until it is in the supervisor's snapshot. Return the result of the change.

    The wait ends without an error if no supervisor answers, or after RECORD_TIMEOUT_S.
    """
    result = yield from change
    end = clock() + RECORD_TIMEOUT_S
    times: Times | None = yield from _times()
    if times is not None:
        changed, _ = times
        while times is not None and times[1] < changed and clock() < end:
            yield Pause(POLL_INTERVAL_S)
            times = yield from _times()
    return result


def _times() -> CallSequence[Times | None]:
    try:
        times: Times | None = yield RestCall(
            "health", "GET", build_path("recorded"), _read, resend="never", limit=ANSWER_TIMEOUT_S
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
