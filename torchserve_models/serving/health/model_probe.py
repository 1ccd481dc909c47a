"""Probe a model with a small request that only a working model can answer."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from torchserve_models import client
from torchserve_models.client import Client, Endpoints
from torchserve_models.serving.health import archive_origin, probe_inputs
from torchserve_models.serving.health.archive_origin import Origin
from torchserve_models.serving.health.model_states import Model, inspect


@dataclass(frozen=True)
class ProbeResult:
    """Result of a probe. `problem` is None for status 200 and for a model that is `busy` with other requests.

    `asked` is False where no question is known for the model, which is then judged by its workers alone.
    """

    problem: str | None
    seconds: float
    busy: bool = False
    asked: bool = True

    @property
    def ok(self) -> bool:
        return self.problem is None


class Probe:
    """A probe running in a daemon thread; `answer` is None until it completes."""

    def __init__(
        self, endpoints: Endpoints, store: Path, model: Model, timeout: float, known: Origin | None = None
    ) -> None:
        """`known`: the origin of the model; None to look it up first."""
        self.answer: ProbeResult | None = None

        def run() -> None:
            try:
                found = known or archive_origin.find_origin(endpoints, store, model, timeout)
                self.answer = send_probe(endpoints, model, found, timeout)
            except Exception as error:  # whoever waits for the answer would wait for ever
                self.answer = ProbeResult(f"the probe failed: {error!r}", 0.0)

        threading.Thread(target=run, name=f"canary-{model.name}", daemon=True).start()


def send_probe(endpoints: Endpoints, model: Model, found: Origin | None, timeout: float) -> ProbeResult:
    """Send the probe request of the model's task to this version over REST. It counts in the metrics.

    A model that was not packed here has no task and is not asked. A full queue, or one that the question waits in for
    too long, is no fault of the model: its workers are there, and other requests are before this one.
    """
    if found is None:
        return ProbeResult("its task is unknown: its archive is no longer in the store", 0.0, asked=False)
    if found.task not in ("image-classification", "summarization"):
        return ProbeResult(None, 0.0, asked=False)
    version = None if model.default else model.version
    start = time.monotonic()
    problem, busy = None, False
    try:
        with Client(endpoints=endpoints, timeout=timeout, retries=0) as connection:
            if found.task == "image-classification":
                connection.classify(model.name, probe_inputs.make_image(), version=version)
            else:
                connection.summarize(
                    model.name, probe_inputs.TEXT, version, **probe_inputs.GENERATION_PARAMETERS
                )
    except (client.Overloaded, client.Timeout) as error:
        busy = _is_busy(endpoints, model)
        problem = None if busy else error.message
    except client.TorchServeError as error:
        problem = error.message
    return ProbeResult(problem, time.monotonic() - start, busy)


def _is_busy(endpoints: Endpoints, asked: Model) -> bool:
    """Return whether every worker is alive and requests are queued.

    TorchServe answers a full queue and no worker at all with one and the same sentence. A question that was given up
    waits on in the queue; one that a worker has taken and does not answer is in none.
    """
    try:
        versions = inspect(endpoints, [asked.name], timeout=2.0)
    except client.TorchServeError:
        return False
    return any(
        model.ready and model.queue_waiting > 0 for model in versions if model.version == asked.version
    )
