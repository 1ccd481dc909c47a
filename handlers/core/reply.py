"""How an answer is written: the native JSON here, the Open Inference Protocol's in `open_inference.py`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from handlers.core.errors import ServingError
from handlers.core.tensor import Tensor


class Writer(Protocol):
    """What a task knows about writing its answers."""

    def encode(self, answer: Any) -> Any: ...

    def outputs(self, answers: Sequence[Any]) -> list[Tensor]: ...


class Reply(Protocol):
    """Writes the answers of one request, or its error, as a JSON value."""

    def answer(self, writer: Writer, answers: Sequence[Any]) -> Any: ...

    def error(self, error: ServingError) -> Any: ...


@dataclass(frozen=True)
class NativeReply:
    """Always a list, as Hugging Face's clients expect: labels of one picture, summaries of one text or several."""

    several: bool = False

    def answer(self, writer: Writer, answers: Sequence[Any]) -> Any:
        values = [writer.encode(answer) for answer in answers]
        return values[0] if not self.several and isinstance(values[0], list) else values

    def error(self, error: ServingError) -> Any:
        return error.as_dict()
