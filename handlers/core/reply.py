"""How an answer is written: the native JSON here, the Open Inference Protocol's in `open_inference.py`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from handlers.core.errors import HandlerError
from handlers.core.tensor import Tensor


class Writer(Protocol):
    """What a task knows about writing its answers."""

    def encode(self, answer: Any) -> Any: ...

    def outputs(self, answers: Sequence[Any]) -> list[Tensor]: ...


@dataclass(frozen=True)
class Body:
    """An answer that is not JSON alone."""

    content: bytes
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Reply(Protocol):
    """Writes the answers of one request as a JSON value or a `Body`, or its error as a JSON value."""

    def answer(self, writer: Writer, answers: Sequence[Any]) -> Any: ...

    def error(self, error: HandlerError) -> Any: ...


@dataclass(frozen=True)
class NativeReply:
    """Always a list, as Hugging Face's clients expect: labels of one image, summaries of one text or several."""

    several: bool = False

    def answer(self, writer: Writer, answers: Sequence[Any]) -> Any:
        values = [writer.encode(answer) for answer in answers]
        return values[0] if not self.several and isinstance(values[0], list) else values

    def error(self, error: HandlerError) -> Any:
        return error.as_dict()


def to_json(value: Any) -> bytes:
    """Half a surrogate pair, which a message may repeat from a client's text, stays an escape."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")


def to_body(value: Any) -> Body:
    """What a `Reply` wrote, ready to send."""
    return value if isinstance(value, Body) else Body(to_json(value), "application/json")
