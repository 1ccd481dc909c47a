"""Probe a model: send a small request that only a working model can answer."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from torchserve_models import client
from torchserve_models.client import Client, Endpoints, readiness
from torchserve_models.serving.health import archive_origin, probe_inputs
from torchserve_models.serving.health.archive_origin import ArchiveOrigin
from torchserve_models.serving.health.model_states import ObservedVersion, inspect

FRONT_END_REFUSAL = "ServiceUnavailableException"
"""The error type of TorchServe's front end for a full queue or no worker; a 503 from a handler has another type."""


@dataclass(frozen=True)
class ProbeResult:
    """Result of a probe.

    Attributes:
        problem: Why the model does not answer; None if it answered with status 200 or is busy.
        seconds: Duration of the probe.
        busy: Whether the model could not take the request because of other requests.
        sent: Whether a request was sent. False if the model's task has no probe request; then only the state of its
            workers determines readiness.
    """

    problem: str | None
    seconds: float
    busy: bool = False
    sent: bool = True

    @property
    def ok(self) -> bool:
        """Whether the model answered or is busy."""
        return self.problem is None


class ModelProbe:
    """A probe running in a daemon thread; `answer` is None until it completes."""

    def __init__(
        self,
        endpoints: Endpoints,
        store: Path,
        model: ObservedVersion,
        timeout: float,
        origin: ArchiveOrigin | None = None,
    ) -> None:
        """Start the probe. `origin` is the model's origin; if None, the probe looks it up first."""
        self.answer: ProbeResult | None = None

        def run() -> None:
            try:
                known_origin = origin or archive_origin.find_origin(endpoints, store, model, timeout)
                self.answer = send_probe(endpoints, model, known_origin, timeout)
            except Exception as error:  # without a result, the caller would wait forever
                self.answer = ProbeResult(f"the probe failed: {error!r}", 0.0)

        threading.Thread(target=run, name=f"probe-{model.name}", daemon=True).start()


def send_probe(
    endpoints: Endpoints, model: ObservedVersion, origin: ArchiveOrigin | None, timeout: float
) -> ProbeResult:
    """Send the probe request for the model's task to this version over REST; TorchServe's metrics include it.

    A model without a task (not packed by scripts/pack) is not probed. A model that cannot accept the request because
    of other requests is busy, not broken (readiness.is_busy).
    """
    if origin is None:
        return ProbeResult(
            "the model's task is unknown: its archive is no longer in the store", 0.0, sent=False
        )
    if origin.task not in ("image-classification", "summarization"):
        return ProbeResult(None, 0.0, sent=False)
    version = None if model.default else model.version
    start = time.monotonic()
    problem, busy = None, False
    try:
        with Client(endpoints=endpoints, timeout=timeout, retries=0) as connection:
            if origin.task == "image-classification":
                connection.classify(model.name, probe_inputs.make_image(), version=version)
            else:
                connection.summarize(
                    model.name, probe_inputs.TEXT, version, **probe_inputs.GENERATION_PARAMETERS
                )
    except (client.Overloaded, client.Timeout) as error:
        busy = _is_busy(endpoints, model, refused=error.type == FRONT_END_REFUSAL)
        problem = None if busy else error.message
    except client.TorchServeError as error:
        problem = error.message
    return ProbeResult(problem, time.monotonic() - start, busy)


def _is_busy(endpoints: Endpoints, probed: ObservedVersion, refused: bool) -> bool:
    """Describe the version again; return whether it is busy. False if it cannot be described."""
    try:
        models = inspect(endpoints, [probed.name], timeout=2.0)
    except client.TorchServeError:
        return False
    return any(
        readiness.is_busy(model.state(time.monotonic()), refused=refused)
        for model in models
        if model.version == probed.version
    )
