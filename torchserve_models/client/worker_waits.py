"""Wait for the workers of a version. Each function is a call sequence (see call_types.py)."""

import time
from collections.abc import Callable

from torchserve_models.client import readiness
from torchserve_models.client.call_types import CallSequence, Pause
from torchserve_models.client.errors import InternalError, Overloaded, Timeout, TorchServeError
from torchserve_models.client.management import Management
from torchserve_models.client.model_descriptions import Model
from torchserve_models.client.supervisor import readyz_call

POLL_INTERVAL_S = 0.2
"""Polling interval while workers start or stop."""

FIRST_ANSWER_TIMEOUT_S = 2.0
"""Maximum wait for the first answer of a new default version. An idle version answers within a second."""


class _WorkerEndedError(Exception):
    """A worker ended while it was loading the model."""


def wait_until_ready(
    management: Management,
    model: str,
    version: str | None,
    check: Callable[[Model], None] = lambda _: None,
) -> CallSequence[None]:
    """Wait until a version has its configured number of ready workers.

    Args:
        management: The management API, over REST or gRPC.
        model: The model's name.
        version: The model's version; its default version if None.
        check: Called with each description of a version that is not ready yet; may raise.

    Raises:
        Timeout: The deadline has passed; the message has the number of missing workers.
    """
    problem: str | None = "the number of workers that can answer is not known"
    try:
        while True:
            description: Model = yield management.describe_one(model, version)
            problem = readiness.strength_problem(description.state)
            if problem is None:
                return
            check(description)
            yield Pause(POLL_INTERVAL_S)
    except Timeout as error:
        raise Timeout(f"the change was made, but {problem}: {error.message}") from error


def wait_until_loaded(management: Management, registered: Model) -> CallSequence[None]:
    """Wait for the first workers of a version; unregister it if one of them ends while it loads.

    Raises:
        InternalError: A worker has ended.
        Timeout: The deadline has passed.
    """
    pids: dict[str, set[int]] = {}

    def check(description: Model) -> None:
        for worker in description.workers:
            pids.setdefault(worker.id, set()).add(worker.pid)
            if not worker.ready and len(pids[worker.id] - {-1}) > 1:
                raise _WorkerEndedError

    name, version = registered.name, registered.version
    try:
        yield from wait_until_ready(management, name, version, check)
    except _WorkerEndedError:
        yield management.unregister(name, version)
        raise InternalError(
            f"{name} {version} was registered and removed again: its worker ended while it loaded; see the "
            "worker's log for the reason"
        ) from None


def wait_until_answered(model: str, version: str) -> CallSequence[None]:
    """Wait until the supervisor has seen an answer of the version, so that the model stays ready as the default.

    If no supervisor knows the version, or after FIRST_ANSWER_TIMEOUT_S, TorchServe's status READY is sufficient.
    """
    end = time.monotonic() + FIRST_ANSWER_TIMEOUT_S
    while (left_s := end - time.monotonic()) > 0:
        try:
            yield readyz_call(model, version, limit_s=left_s)
            return
        except Overloaded:  # 503: not yet
            yield Pause(POLL_INTERVAL_S)
        except TorchServeError:
            return
