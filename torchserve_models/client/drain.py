"""Waiting until a version has no request any more, before its workers are ended.

TorchServe ends workers at once: what they compute gets 500 `Worker died.`, and what is queued at a version that is
removed is never answered. A version is drained when its queue is empty, no worker is computing, and no request is on
the way from the queue to a worker. The supervisor's state says what the workers do; of several workers, the one that
is to be ended is held first. Where no supervisor answers, or a custom handler does not report, a question to a worker
(describe with `customized`) passes through the queue like a request: its answer means that everything queued before
it was taken. With several workers another one may still be computing what it took, for the model's response timeout
at most.
"""

import math
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

from torchserve_models.client.calls import Call, Pause
from torchserve_models.client.errors import Overloaded, Timeout, TorchServeError, TransportError
from torchserve_models.client.management import Management
from torchserve_models.client.results import Model
from torchserve_models.client.state import State, VersionState, hold_call, state_call

POLL_S = 0.1
"""Between two looks at a queue."""

STEP_POLL_S = 0.01
"""Between two looks at a worker that is to be ended in the moment in which it is idle."""

MARGIN_S = 0.2
"""What a request may take from the queue to a worker, beside the batch delay."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.3, 4.0
"""How long a describe call is waited for before it is taken for held. Workers hold one for longer than that."""

LOOKS = 20
"""How often a supervisor is asked that does not know the version's workers (yet)."""

Clock = Callable[[], float]
Steps = Generator[Call[Any] | Pause, Any, Any]


class Drain:
    """Waits for one version, `timeout` seconds in all. Each method is a plan (see calls.py)."""

    def __init__(
        self,
        management: Management,
        described: Model,
        timeout: float | None,
        clock: Clock = time.monotonic,
    ) -> None:
        """`timeout` None: the model's response timeout, after which TorchServe ends a worker anyway."""
        self._management = management
        self._name, self._version = described.name, described.version
        self._seconds = float(described.response_timeout) if timeout is None else timeout
        self._clock = clock
        self._end = clock() + self._seconds

    def until_empty(self) -> Generator[Call[Any] | Pause, Any, None]:
        """Wait until no request is queued, in progress or on its way. Raises Timeout, with nothing changed."""
        described: Model = yield from self._queue_empty()
        while any(worker.ready for worker in described.workers):
            state: VersionState | None = yield from self._look(described)
            if (state is None or state.idle is not False) and (yield from self._fence()):
                # Only now: a handler without metadata counts the question as a request that it has answered.
                before: VersionState | None = yield from self._look(described)
                yield Pause(described.max_batch_delay / 1000 + MARGIN_S)
                after: VersionState | None = yield from self._look(described)
                described = yield from self._queue_empty()
                if before is None or after is None or after.idle is None:
                    yield from self._settle(described)
                    return
                if after.idle and before.answers == after.answers:
                    return
            yield from self._wait("its workers have requests")
            described = yield from self._queue_empty()

    def until_worker_held(self, worker_id: str) -> Generator[Call[Any] | Pause, Any, bool]:
        """Wait until that worker has no request and gets none, for some seconds; False when the time is over first.

        The worker is held: it keeps a describe call, beside which TorchServe collects no requests for it. Where that
        cannot be had, wait until the worker is idle; a request that TorchServe hands out just then is not seen.
        """
        described: Model = yield self._describe()
        pids = {worker.id: worker.pid for worker in described.workers}
        state: VersionState | None = yield from self._look(described)
        if state is None or state.computing.get(worker_id) is None or worker_id not in pids:
            return (yield from self._until_worker_idle(worker_id))
        limit_s = FIRST_WAIT_S
        asked_at = -math.inf
        while self._clock() < self._end:
            if self._clock() - asked_at > LONGEST_WAIT_S:
                try:
                    yield hold_call(pids[worker_id])
                except TorchServeError:  # an older supervisor, or a worker that has just ended
                    return (yield from self._until_worker_idle(worker_id))
                asked_at = self._clock()
            # Another worker answers at once; the one that holds the call does not.
            answered = yield from self._fence(limit_s)
            state = yield from self._look(described)
            if state is not None and worker_id in state.held:
                return True
            if not answered:
                yield Pause(STEP_POLL_S)
                limit_s = min(2 * limit_s, LONGEST_WAIT_S)
        return False

    def _until_worker_idle(self, worker_id: str) -> Generator[Call[Any] | Pause, Any, bool]:
        """Where it is not known whether the worker is computing, wait until the queue is empty."""
        while True:
            described: Model = yield self._describe()
            state: VersionState | None = yield from self._look(described)
            computing = state.computing.get(worker_id) if state else None
            if computing is False or (computing is None and not described.queue_waiting):
                return True
            if self._clock() >= self._end:
                return False
            yield Pause(STEP_POLL_S if computing else POLL_S)

    def _queue_empty(self) -> Generator[Call[Any] | Pause, Any, Model]:
        while True:
            described: Model = yield self._describe()
            if not described.queue_waiting:
                return described
            yield from self._wait(f"{described.queue_waiting} requests are queued")

    def _wait(self, reason: str) -> Steps:
        if self._clock() >= self._end:
            raise Timeout(
                f"{self._name} {self._version} is not drained after {self._seconds:g} s: {reason}. Nothing was "
                "removed; send it no more requests, allow more time (--drain-timeout), or cut them off (--now)"
            )
        yield Pause(POLL_S)

    def _look(self, described: Model) -> Generator[Call[Any] | Pause, Any, VersionState | None]:
        """The version's state; None if no supervisor answers, or that of another server."""
        pids = {worker.pid for worker in described.workers if worker.ready}
        for _ in range(LOOKS):
            try:
                states: State = yield state_call()
            except TorchServeError:
                return None
            state = states.get((self._name, self._version))
            if state is not None and pids <= state.pids:
                return state
            yield Pause(POLL_S)  # the supervisor may not have seen a new worker yet
        return None

    def _fence(self, limit_s: float = math.inf) -> Generator[Call[Any] | Pause, Any, bool]:
        """Ask a worker through the queue; whether it answered in time, within `limit_s` seconds."""
        left = min(max(self._end - self._clock(), POLL_S), limit_s)
        call = self._management.describe_one(self._name, self._version, customized=True)
        try:
            yield replace(call, resend="never", limit=left)
        except (TransportError, Overloaded):
            return False
        except TorchServeError:
            return True  # a handler without metadata answers with an error, in its turn
        return True

    def _settle(self, described: Model) -> Steps:
        """Without a supervisor: one worker takes its requests in turn, of several another one may still compute."""
        if len(described.workers) > 1:
            yield Pause(float(described.response_timeout))

    def _describe(self) -> Call[Model]:
        return self._management.describe_one(self._name, self._version)
