"""Drain a version: wait until it has no requests, before its workers are ended.

TorchServe ends workers at once: requests in progress get 500 `Worker died.`, and queued requests of a removed version
are never answered. A version is drained when its queue is empty, no worker is computing, and no request is on
the way from the queue to a worker. The supervisor reports the activity of workers. If there are several workers, the
worker to end is held first. If no supervisor answers, or a custom handler does not report its activity, a describe
call with `customized` passes through the queue like a request: its answer means that all earlier requests were
taken. Other workers may still be computing, for at most the model's response timeout.
"""

import math
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

from torchserve_models.client.call_types import Call, Pause
from torchserve_models.client.errors import Overloaded, Timeout, TorchServeError, TransportError
from torchserve_models.client.management import Management
from torchserve_models.client.model_descriptions import Model
from torchserve_models.client.supervisor import Activities, VersionActivity, activity_call, hold_call

POLL_INTERVAL_S = 0.1
"""Polling interval for the length of a queue."""

STEP_INTERVAL_S = 0.01
"""Polling interval for a worker that will be ended as soon as it is idle."""

DISPATCH_MARGIN_S = 0.2
"""Maximum time from the queue to a worker, in addition to the batch delay."""

MIN_HOLD_WAIT_S, MAX_HOLD_WAIT_S = 0.3, 4.0
"""First and maximum time without an answer after which a describe call is considered held. A hold is longer."""

ACTIVITY_ATTEMPTS = 20
"""Maximum number of polls, POLL_INTERVAL_S apart, while the supervisor does not know the version's workers yet."""

Clock = Callable[[], float]
Steps = Generator[Call[Any] | Pause, Any, Any]


class VersionDrainer:
    """Drains one version. Each method is a call sequence (see call_types.py)."""

    def __init__(
        self,
        management: Management,
        description: Model,
        timeout: float | None,
        clock: Clock = time.monotonic,
    ) -> None:
        """Start the time limit.

        Args:
            management: The management API, over REST or gRPC.
            description: The version to drain.
            timeout: Maximum total wait in seconds; the model's response timeout if None.
            clock: Seconds on a clock that only goes forward.
        """
        self._management = management
        self._name, self._version = description.name, description.version
        self._seconds = float(description.response_timeout) if timeout is None else timeout
        self._clock = clock
        self._end = clock() + self._seconds

    def wait_until_empty(self) -> Generator[Call[Any] | Pause, Any, None]:
        """Wait until no request is queued, dispatched or in progress. Raises Timeout without changing anything."""
        description: Model = yield from self._queue_empty()
        while any(worker.ready for worker in description.workers):
            activity: VersionActivity | None = yield from self._read_activity(description)
            if (activity is None or activity.idle is not False) and (yield from self._pass_queue()):
                # Read the counters now, because a handler without metadata counts the describe call as a request.
                before: VersionActivity | None = yield from self._read_activity(description)
                yield Pause(description.max_batch_delay / 1000 + DISPATCH_MARGIN_S)
                after: VersionActivity | None = yield from self._read_activity(description)
                description = yield from self._queue_empty()
                if before is None or after is None or after.idle is None:
                    yield from self._settle(description)
                    return
                if after.idle and before.answers == after.answers:
                    return
            yield from self._wait("the workers have requests")
            description = yield from self._queue_empty()

    def wait_until_worker_held(self, worker_id: str) -> Generator[Call[Any] | Pause, Any, bool]:
        """Hold a worker: wait until it has no request and will get none for some seconds. Return False on timeout.

        A held worker delays a describe call; meanwhile TorchServe sends it no requests. If the worker cannot be held,
        wait until it is idle; a request that TorchServe dispatches at that moment is lost.
        """
        description: Model = yield self._describe()
        pids = {worker.id: worker.pid for worker in description.workers}
        activity: VersionActivity | None = yield from self._read_activity(description)
        if activity is None or activity.computing.get(worker_id) is None or worker_id not in pids:
            return (yield from self._wait_until_worker_idle(worker_id))
        limit_s = MIN_HOLD_WAIT_S
        asked_at = -math.inf
        while self._clock() < self._end:
            if self._clock() - asked_at > MAX_HOLD_WAIT_S:
                try:
                    yield hold_call(pids[worker_id])
                except TorchServeError:  # an older supervisor, or a worker that has just ended
                    return (yield from self._wait_until_worker_idle(worker_id))
                asked_at = self._clock()
            # Only the held worker delays its answer.
            answered = yield from self._pass_queue(limit_s)
            activity = yield from self._read_activity(description)
            if activity is not None and worker_id in activity.held_workers:
                return True
            if not answered:
                yield Pause(STEP_INTERVAL_S)
                limit_s = min(2 * limit_s, MAX_HOLD_WAIT_S)
        return False

    def _wait_until_worker_idle(self, worker_id: str) -> Generator[Call[Any] | Pause, Any, bool]:
        """Wait until the worker is idle, or until the queue is empty if the worker does not report its activity."""
        while True:
            description: Model = yield self._describe()
            activity: VersionActivity | None = yield from self._read_activity(description)
            computing = activity.computing.get(worker_id) if activity else None
            if computing is False or (computing is None and not description.queue_waiting):
                return True
            if self._clock() >= self._end:
                return False
            yield Pause(STEP_INTERVAL_S if computing else POLL_INTERVAL_S)

    def _queue_empty(self) -> Generator[Call[Any] | Pause, Any, Model]:
        while True:
            description: Model = yield self._describe()
            if not description.queue_waiting:
                return description
            yield from self._wait(f"{description.queue_waiting} requests are queued")

    def _wait(self, reason: str) -> Steps:
        if self._clock() >= self._end:
            raise Timeout(
                f"{self._name} {self._version} is not drained after {self._seconds:g} s: {reason}. Nothing was "
                "removed; stop sending requests, set a longer --drain-timeout, or set --now to drop them"
            )
        yield Pause(POLL_INTERVAL_S)

    def _read_activity(self, description: Model) -> Generator[Call[Any] | Pause, Any, VersionActivity | None]:
        """Return the version's activity; None if this server's supervisor does not answer."""
        pids = {worker.pid for worker in description.workers if worker.ready}
        for _ in range(ACTIVITY_ATTEMPTS):
            try:
                activities: Activities = yield activity_call()
            except TorchServeError:
                return None
            activity = activities.get((self._name, self._version))
            if activity is not None and pids <= activity.pids:
                return activity
            yield Pause(POLL_INTERVAL_S)  # the supervisor may not have seen a new worker yet
        return None

    def _pass_queue(self, limit_s: float = math.inf) -> Generator[Call[Any] | Pause, Any, bool]:
        """Send a describe call through the queue; return whether it was answered within `limit_s` seconds."""
        left_s = min(max(self._end - self._clock(), POLL_INTERVAL_S), limit_s)
        call = self._management.describe_one(self._name, self._version, customized=True)
        try:
            yield replace(call, resend="never", limit=left_s)
        except (TransportError, Overloaded):
            return False
        except TorchServeError:
            return True  # a handler without metadata answers with an error when it is its turn
        return True

    def _settle(self, description: Model) -> Steps:
        """Wait for the response timeout if another worker may still be computing."""
        if len(description.workers) > 1:
            yield Pause(float(description.response_timeout))

    def _describe(self) -> Call[Model]:
        return self._management.describe_one(self._name, self._version)
