"""Answers of the server as typed values, without I/O."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Generic, TypeVar, cast

Scalar = int | float | bool | str
InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")


@dataclass(frozen=True)
class MapResult(Generic[InputT, OutputT]):
    """One input of `map` with its output or its error.

    Attributes:
        index: Number of the input, from 0.
        input: The input.
        output: What the function returned; None if it failed.
        error: The TorchServeError or OSError of this input; None if it succeeded.
    """

    index: int
    input: InputT = field(repr=False)
    output: OutputT | None = None
    error: Exception | None = None

    @property
    def name(self) -> str:
        """The input's path if it is one, otherwise the index."""
        return str(self.input) if isinstance(self.input, PurePath) else str(self.index)

    def result(self) -> OutputT:
        """Return the output, or raise the error, as `concurrent.futures.Future.result` does.

        Returns:
            What the function returned.

        Raises:
            TorchServeError: The error of this input.
            OSError: The error of this input.
        """
        if self.error is not None:
            raise self.error
        return cast(OutputT, self.output)


@dataclass(frozen=True)
class Readiness:
    """Readiness of a server or a model, which can be used as a boolean.

    Attributes:
        ready: Whether the server or model is ready.
        reason: Reason why it is not ready; empty if it is ready.
    """

    ready: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ready

    def __str__(self) -> str:
        return "ready" if self.ready else f"not ready: {self.reason}"


@dataclass(frozen=True)
class Label:
    """One class of an image.

    Attributes:
        label: Name of the class.
        score: Its probability, from 0 to 1, unless another `function_to_apply` was requested.
    """

    label: str
    score: float


@dataclass(frozen=True)
class Summary:
    """Summary of one text.

    Attributes:
        text: The summary.
        truncated: Whether the text exceeded the model's input length and was truncated.
    """

    text: str
    truncated: bool = False


@dataclass(frozen=True)
class Tensor:
    """A tensor of the Open Inference Protocol.

    Attributes:
        name: Name of the input or output.
        datatype: Such as "FP32", "INT64", "BOOL" or "BYTES".
        shape: Size of each dimension.
        data: The elements, flat and row-major; those of BYTES are str or bytes.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: tuple[Any, ...]


@dataclass(frozen=True)
class Inference:
    """An answer of the Open Inference Protocol.

    Attributes:
        model_name: The model that answered.
        model_version: Its version.
        id: The id of the request; empty if it had none.
        outputs: The output tensors.
    """

    model_name: str
    model_version: str
    id: str
    outputs: tuple[Tensor, ...]

    def output(self, name: str) -> Tensor:
        """Return an output tensor.

        Args:
            name: Name of the tensor.

        Raises:
            KeyError: The output does not exist; the message lists the outputs.
        """
        for tensor in self.outputs:
            if tensor.name == name:
                return tensor
        raise KeyError(
            f"the answer has no output {name!r}; its outputs are: {', '.join(tensor.name for tensor in self.outputs)}"
        )


@dataclass(frozen=True)
class Sample:
    """One sample of the metrics.

    Attributes:
        name: Name of the sample; counters end with `_total`, except the series of histograms.
        labels: Its labels.
        value: Its value.
    """

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Metrics:
    """The metrics of a server; iterate over it for the samples.

    Attributes:
        samples: All samples.
    """

    samples: tuple[Sample, ...] = field(repr=False)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __len__(self) -> int:
        return len(self.samples)

    def select(self, name: str, **labels: str) -> list[Sample]:
        """Return the samples of exactly that name whose labels include `labels`.

        Args:
            name: Name of the samples.
            labels: Labels and their values.
        """
        return [
            sample
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the values that `select` returns; 0 if it returns none.

        Args:
            name: Name of the samples.
            labels: Labels and their values.
        """
        return sum(sample.value for sample in self.select(name, **labels))
