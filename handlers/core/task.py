"""The interface of a task: four abstract methods, and methods and attributes with defaults."""

import base64
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from handlers.core.config import HandlerConfig
from handlers.core.device import AMX, Device
from handlers.core.errors import HandlerError
from handlers.core.ignored_parameters import IgnoredParameter
from handlers.core.parameters import Parameter
from handlers.core.response_encoder import to_json
from handlers.core.tensor import Payload, Tensor, TensorSpec

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Task(ABC, Generic[Item, Answer]):
    """Base class of tasks, which convert inputs to items, items to answers, and answers to JSON.

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
        """Convert one input to an item of a batch. Raises HandlerError, which affects only this request."""

    @abstractmethod
    def predict(self, items: Sequence[Item]) -> Sequence[Answer | HandlerError]:
        """Return an answer or an error for each item of one batch, in order."""

    @abstractmethod
    def encode(self, answer: Answer) -> Any:
        """Return the native JSON value of one answer."""

    def parameters(self) -> Sequence[Parameter]:
        """Return the parameters that a request may set, within the server's limits. Called once, after `load`."""
        return ()

    def ignored_parameters(self) -> Sequence[IgnoredParameter]:
        """Return parameters that are accepted and have no effect. Called once, after `load`."""
        return ()

    def batches(self, items: Sequence[Item]) -> list[list[int]]:
        """Return the batches of the model as lists of item indices. Each index is in exactly one batch."""
        return [list(range(len(items)))]

    def outputs(self, answers: Sequence[Answer]) -> list[Tensor]:
        """Encode answers as Open Inference Protocol tensors. The default is one tensor with the answers as JSON."""
        return [
            Tensor(
                "output",
                "BYTES",
                (len(answers),),
                [to_json(self.encode(answer)).decode() for answer in answers],
            )
        ]

    def warm_up(self) -> None:
        """Run the model once on all code paths that requests use. By default, run it on `example` if that is set."""
        if self.example:
            is_text = self.media_type.startswith("text/")
            payload = self.example if is_text else base64.b64decode(self.example)
            self.predict([self.decode(payload, {})])

    def generated_tokens(self, answer: Answer) -> int:  # noqa: ARG002
        """Return the number of generated tokens in `answer`, for the metrics."""
        return 0

    def describe(self) -> dict[str, Any]:
        """Return the task's part of the model's description."""
        return {}

    config_type: ClassVar[type[HandlerConfig]] = HandlerConfig
    payload_fields: ClassVar[tuple[str, ...]] = ("data",)
    """Allowed names of the form field or tensor that contains the input. The API documentation shows the first."""

    input_tensor: ClassVar[TensorSpec | None] = None
    """The input in the model's metadata. None: a BYTES tensor with the first name of `payload_fields`."""
    output_tensors: ClassVar[tuple[TensorSpec, ...]] = (TensorSpec("output", "BYTES", (-1,)),)
    """The tensors that `outputs` returns, for the model's metadata."""
    answer_schema: ClassVar[Mapping[str, Any]] = {}
    """JSON Schema of the results of `encode`, for the API documentation."""
    media_type: ClassVar[str] = "application/octet-stream"
    """Media type of a raw body. Inputs of type text/... are decoded from the charset that the request declares; all
    other inputs are base64 in JSON."""
    example: ClassVar[str] = ""
    """A sample input in its JSON form, for the API documentation and the default warm-up."""

    parallel_decode: ClassVar[bool] = False
    """True if `decode` is thread-safe, so that several threads may run it at once."""
    takes_numbers: ClassVar[bool] = True
    """True if inputs may be numeric tensors, which are long lists of numbers in JSON."""
    bf16_flags: ClassVar[Set[str]] = AMX
    """CPU flags. On a CPU with at least one of them, the task's models run faster in bf16 than in fp32."""
    fp16_on_gpu: ClassVar[bool] = False
    """True if `load` accepts fp16, which a GPU without bf16 (V100, T4) computes faster than fp32. Values above 65,504
    overflow in fp16."""

    batch_size: int = 1
    """Maximum number of requests in a batch. Set before `load`."""
    parallel_map: Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]] = staticmethod(map)
    """Replacement for `map` that uses the threads of the decoding pool, if one exists. Set before `load`."""
