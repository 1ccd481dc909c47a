"""What came back for a request, and which category that is: the classification table."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from torchserve_models import client


class Category(StrEnum):
    """RIGHT: the known answer, or a 4xx to a bad request. WRONG: another answer, a good request rejected as bad, or
    200 or 500 to a bad one. REFUSED: 429, 503 or no connection, so that it may be sent again. LOST: accepted, and
    then no answer. ABANDONED: the client left on purpose."""

    RIGHT = "right"
    WRONG = "wrong"
    REFUSED = "refused"
    LOST = "lost"
    ABANDONED = "abandoned"


# unsent: no connection, the server received nothing; broken: the connection broke after that.
Failure = Literal["unsent", "broken", "timeout"]


PLAIN = "http"
"""The protocol of a request that was sent by plain HTTP where the others are sent by the Python client."""


@dataclass(frozen=True)
class Reply:
    """What a client saw: a status with its message, or a failure of the connection. `value` is a good answer's."""

    status: int | None = None
    message: str = ""
    failure: Failure | None = None
    retry_after: float | None = None
    value: object = None

    @property
    def label(self) -> str:
        """Short, for counting."""
        if self.failure:
            return self.failure
        if "Worker died" in self.message:
            return f"{self.status} Worker died"
        return str(self.status)


@dataclass(frozen=True, slots=True)
class Record:
    """One request. Times are on the monotonic clock; `kind` is "good", "bad" or "hostile"."""

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
    """`matches`: a good answer is the known one. `may_close`: the server may answer by closing the connection."""
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
    """What the Python client raised, as a reply."""
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
