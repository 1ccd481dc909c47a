"""Encode responses: the interface of the protocols' encoders, and the encoder of native JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from handlers.core.errors import HandlerError
from handlers.core.tensor import Tensor


class AnswerEncoder(Protocol):
    """The methods of a task that encode its answers."""

    def encode(self, answer: Any) -> Any: ...

    def outputs(self, answers: Sequence[Any]) -> list[Tensor]: ...


@dataclass(frozen=True)
class ResponseBody:
    """A response with its content type and headers."""

    content: bytes
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


class ResponseEncoder(Protocol):
    """An encoder of one response. It returns the answers or the error as a JSON value or a `ResponseBody`."""

    def encode_answers(self, task: AnswerEncoder, answers: Sequence[Any]) -> Any: ...

    def encode_error(self, error: HandlerError) -> Any: ...


@dataclass(frozen=True)
class NativeEncoder:
    """An encoder of native JSON responses. Each is a list, as Hugging Face clients expect.

    Attributes:
        is_list: True if the request's `inputs` is a list. Otherwise an answer that is a list, such as the labels of
            an image, is not nested in another list.
    """

    is_list: bool = False

    def encode_answers(self, task: AnswerEncoder, answers: Sequence[Any]) -> Any:
        values = [task.encode(answer) for answer in answers]
        return values[0] if not self.is_list and isinstance(values[0], list) else values

    def encode_error(self, error: HandlerError) -> Any:
        return error.as_dict()


def to_json(value: Any) -> bytes:
    """Encode a value as JSON in UTF-8. Lone surrogates, which a client's text may contain, are escaped."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")


def to_body(value: Any) -> ResponseBody:
    """Convert the result of a `ResponseEncoder` to a response body."""
    return value if isinstance(value, ResponseBody) else ResponseBody(to_json(value), "application/json")
