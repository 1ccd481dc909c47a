"""The interface of a task: four abstract methods, and methods and attributes with defaults."""

import base64
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from handlers.core.config import HandlerConfig
from handlers.core.device import AMX, Device
from handlers.core.errors import HandlerError
from handlers.core.parameters import Parameter
from handlers.core.passed_over import PassedOver
from handlers.core.reply import to_json
from handlers.core.tensor import Payload, Tensor, TensorSpec

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Task(ABC, Generic[Item, Answer]):
    """Turn inputs into items, items into answers, and answers into JSON.

    A subclass implements `load`, `decode`, `predict` and `encode`. The batch pipeline (`pipeline.py`) calls them.
    Attributes at the end of the class describe the task's input and output.
    """

    @abstractmethod
    def load(self, folder: Path, config: Any, device: Device) -> None:
        """Load the model from `folder`, which has the layout of the Hugging Face Hub.

        Args:
            folder: The model's files.
            config: An instance of `config_type`.
            device: Device, precision and number of threads to use.
        """

    @abstractmethod
    def decode(self, payload: Payload, parameters: dict[str, Any]) -> Item:
        """Turn one input into an item of a batch. Raises HandlerError, which fails this request only."""

    @abstractmethod
    def predict(self, items: Sequence[Item]) -> Sequence[Answer | HandlerError]:
        """Return an answer or an error for each item of one batch, in order."""

    @abstractmethod
    def encode(self, answer: Answer) -> Any:
        """Return the native JSON value of one answer."""

    def parameters(self) -> Sequence[Parameter]:
        """Return what a request may set, within the server's limits. Called once, after `load`."""
        return ()

    def passed_over(self) -> Sequence[PassedOver]:
        """Return parameters that clients send and that change nothing. Called once, after `load`."""
        return ()

    def batches(self, items: Sequence[Item]) -> list[list[int]]:
        """Return the indices of the items that go through the model together, each index in exactly one batch."""
        return [list(range(len(items)))]

    def outputs(self, answers: Sequence[Answer]) -> list[Tensor]:
        """Return answers as tensors of the Open Inference Protocol: by default, one of the answers as JSON."""
        return [
            Tensor(
                "output",
                "BYTES",
                (len(answers),),
                [to_json(self.encode(answer)).decode() for answer in answers],
            )
        ]

    def warm_up(self) -> None:
        """Run the model once in each way it will run: by default, on the example, if there is one."""
        if self.example:
            is_text = self.media_type.startswith("text/")
            payload = self.example if is_text else base64.b64decode(self.example)
            self.predict([self.decode(payload, {})])

    def generated_tokens(self, answer: Answer) -> int:  # noqa: ARG002
        """Return the number of new tokens in `answer`, for the metric."""
        return 0

    def describe(self) -> dict[str, Any]:
        """Return what the describe API adds for this task."""
        return {}

    config_type: ClassVar[type[HandlerConfig]] = HandlerConfig
    payload_fields: ClassVar[tuple[str, ...]] = ("data",)
    """Names of the form field or tensor that holds the input. The documentation shows the first."""

    input_tensor: ClassVar[TensorSpec | None] = None
    """The input in the model's metadata. None: BYTES, named as the first of `payload_fields`."""
    output_tensors: ClassVar[tuple[TensorSpec, ...]] = (TensorSpec("output", "BYTES", (-1,)),)
    """The tensors that `outputs` returns, for the model's metadata."""
    answer_schema: ClassVar[Mapping[str, Any]] = {}
    """JSON Schema of what `encode` returns, for the API's documentation."""
    media_type: ClassVar[str] = "application/octet-stream"
    """Media type of an input that is sent as a raw body. Inputs of type text/... are decoded by the charset that the
    request declares; other inputs are base64 in JSON."""
    example: ClassVar[str] = ""
    """A sample input in its JSON form, for the API's documentation and the default warm-up."""

    parallel_decode: ClassVar[bool] = False
    """Whether `decode` may run in several threads at once."""
    takes_numbers: ClassVar[bool] = True
    """Whether inputs may be numeric tensors, which in JSON are long lists of numbers."""
    bf16_flags: ClassVar[Set[str]] = AMX
    """CPU flags with any of which the task's models run faster in bf16 than in fp32."""

    batch_size: int = 1
    """The most requests of a batch. Set before `load`."""
    spread: Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]] = staticmethod(map)
    """`map`, on the threads of the decoding pool if there is one. Set before `load`."""
