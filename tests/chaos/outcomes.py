"""Classification of replies into categories."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from torchserve_models import client


class Category(StrEnum):
    """Category of a reply.

    RIGHT: the known answer, or a 4xx to a bad request. WRONG: another answer, a 4xx to a good request, or 200 or 500
    to a bad request. REFUSED: 429, 503 or no connection; the client may send the request again. LOST: accepted but
    not answered. ABANDONED: the client disconnected on purpose.
    """

    RIGHT = "right"
    WRONG = "wrong"
    REFUSED = "refused"
    LOST = "lost"
    ABANDONED = "abandoned"


# unsent: no connection, so the server received nothing; broken: the connection broke after the request was sent.
Failure = Literal["unsent", "broken", "timeout"]


PLAIN = "http"
"""Protocol name of requests that are sent by plain HTTP even if the Python client sends the others."""


@dataclass(frozen=True)
class Reply:
    """Reply to a client: a status with its message and, for a good answer, its `value`; or a connection failure."""

    status: int | None = None
    message: str = ""
    failure: Failure | None = None
    retry_after: float | None = None
    value: object = None

    @property
    def label(self) -> str:
        """Short description of the reply, for counts."""
        if self.failure:
            return self.failure
        if "Worker died" in self.message:
            return f"{self.status} Worker died"
        return str(self.status)


@dataclass(frozen=True, slots=True)
class Record:
    """Record of one request. Times are `time.monotonic()` seconds; `kind` is good, bad, hostile or abandoned."""

    started: float
    ended: float
    kind: str
    case: str
    model: str
    protocol: str
    category: Category
    label: str
    message: str = ""


def classify(kind: str, reply: Reply, matches: bool = False, may_close: bool = False) -> Category:
    """Return the category of a reply.

    Args:
        kind: "good", "bad" or "hostile".
        reply: Reply to classify.
        matches: Whether the answer to a good request is the known answer.
        may_close: Whether the server may close the connection instead of answering.
    """
    good = kind == "good"
    if reply.failure is not None:
        if reply.failure == "unsent":
            return Category.REFUSED
        return Category.RIGHT if may_close and reply.failure == "broken" else Category.LOST
    status = reply.status or 0
    if "Worker died" in reply.message or status in (502, 504, 507):
        return Category.LOST
    if status in (429, 503) and "Prediction failed" not in reply.message:
        return Category.REFUSED
    if good:
        if 200 <= status < 300:
            return Category.RIGHT if matches else Category.WRONG
        return Category.LOST if status >= 500 or status == 408 else Category.WRONG
    return Category.RIGHT if 400 <= status < 500 else Category.WRONG


def reply_of(error: client.TorchServeError) -> Reply:
    """Return an error of the Python client as a reply."""
    if isinstance(error, client.Unavailable):
        return Reply(message=error.message, failure="broken" if error.sent else "unsent")
    if isinstance(error, client.Timeout) and error.code is None:
        return Reply(message=error.message, failure="timeout")
    if isinstance(error, client.Overloaded):
        return Reply(error.code or 503, error.message, retry_after=error.retry_after)
    if isinstance(error, client.TransportError) and error.code is None:
        return Reply(message=error.message, failure="broken")
    if isinstance(error, client.UnexpectedAnswer):
        return Reply(error.code or 200, error.message)
    return Reply(error.code or 500, error.message)
