"""Requests for a model that is already served: images or texts, whichever it takes."""

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from benchmarks.errors import BenchError
from torchserve_models.loadgen import LoadJob, OpenLoop, Target, post_request, run_job
from training.reports import HELD_OUT_SEED, reports

TEXTS = 16


class Address(NamedTuple):
    """`prefix` comes before /predictions: "" or a path without a slash at its end."""

    host: str
    port: int
    prefix: str = ""

    def post(self, model: str, body: bytes, content_type: str) -> bytes:
        host = f"{self.host}:{self.port}"
        return post_request(f"{self.prefix}/predictions/{model}", body, content_type, host)


def images_to(address: Address, model: str, images: Sequence[bytes]) -> Target:
    """The answer holds five labels, whatever they are."""
    requests = tuple(address.post(model, each, "image/jpeg") for each in images)
    return Target(address.host, address.port, requests, b'"label"', 5)


def texts_to(address: Address, model: str) -> Target:
    """Drawn reports; the answer holds one summary."""
    texts = [text for text, _ in reports(HELD_OUT_SEED, TEXTS)]
    requests = tuple(address.post(model, each.encode(), "text/plain") for each in texts)
    return Target(address.host, address.port, requests, b'"summary_text"', 1)


def served(url: str, model: str, images: Sequence[bytes]) -> Target:
    """What the model at that address answers rightly. Raises BenchError with what it said."""
    address = address_of(url)
    problems = []
    for kind, target in (
        ("image", images_to(address, model, images)),
        ("text", texts_to(address, model)),
    ):
        outcome = run_job(LoadJob(target, OpenLoop(rate=20.0), seconds=0.2, ramp_s=0.0))
        if not outcome.errors:
            return target
        problems.append(f"{', '.join(outcome.errors)} to a {kind}")
    raise BenchError(f"{model} at {url} does not answer as a model of ours: {'; '.join(problems)}")


def address_of(url: str) -> Address:
    """The parts of an http address. Raises BenchError."""
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise BenchError(f"--url {url}: {error}") from error
    if parts.scheme != "http" or not parts.hostname:
        raise BenchError(f"--url {url}: expected http://HOST:PORT")
    return Address(parts.hostname, port, parts.path.rstrip("/"))
