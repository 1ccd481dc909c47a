"""A small request to each model that only a model that truly works can answer."""

import io
import threading
import time
from dataclasses import dataclass

from PIL import Image

import client
from client import Client, Endpoints

_TEXT = "The server asks itself a short question. It wants to know whether the model answers."


@dataclass(frozen=True)
class Answer:
    """`problem` is None for an answer of status 200."""

    problem: str | None
    seconds: float

    @property
    def ok(self) -> bool:
        return self.problem is None


class Question:
    """A question on its way, in a thread that nobody has to wait for; `answer` is None until it is there."""

    def __init__(self, endpoints: Endpoints, model: str, task: str | None, timeout: float) -> None:
        self.answer: Answer | None = None

        def run() -> None:
            self.answer = ask(endpoints, model, task, timeout)

        threading.Thread(target=run, name=f"canary-{model}", daemon=True).start()


def ask(endpoints: Endpoints, model: str, task: str | None, timeout: float) -> Answer:
    """Sends the request of that task over REST; a model of no known task is not asked. It counts in the metrics.

    A full queue is no fault of the model: its workers are busy with other people's requests.
    """
    start = time.monotonic()
    problem = None
    try:
        with Client(endpoints=endpoints, timeout=timeout, retries=0) as connection:
            if task == "image-classification":
                connection.classify(model, _png())
            elif task == "summarization":
                connection.summarize(model, _TEXT, num_beams=1, min_new_tokens=0, max_new_tokens=2)
    except client.Overloaded as error:
        problem = None if _is_full(endpoints, model) else error.message
    except client.ServeError as error:
        problem = error.message
    return Answer(problem, time.monotonic() - start)


def _is_full(endpoints: Endpoints, model: str) -> bool:
    """TorchServe answers a full queue and no worker at all with one and the same sentence."""
    try:
        with Client(endpoints=endpoints, timeout=2.0, retries=0) as connection:
            described = connection.describe(model)
    except client.ServeError:
        return False
    return described.ready and described.queue_free == 0


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "grey").save(buffer, "PNG")
    return buffer.getvalue()
