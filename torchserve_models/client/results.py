"""What the server answers, as typed values. Nothing here does I/O."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Generic, TypeVar, cast

Scalar = int | float | bool | str
InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")


@dataclass(frozen=True)
class MapResult(Generic[InputT, OutputT]):
    """One input of `map` and its output or its error. `index` counts the inputs from 0."""

    index: int
    input: InputT = field(repr=False)
    output: OutputT | None = None
    error: Exception | None = None

    @property
    def name(self) -> str:
        """The path of an input that is one, otherwise the index."""
        return str(self.input) if isinstance(self.input, PurePath) else str(self.index)

    def result(self) -> OutputT:
        """The output. Raises the error if there is one, as `concurrent.futures.Future.result` does."""
        if self.error is not None:
            raise self.error
        return cast(OutputT, self.output)


@dataclass(frozen=True)
class Readiness:
    """True or false as a condition; `reason` says what is not ready and is empty otherwise."""

    ready: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ready

    def __str__(self) -> str:
        return "ready" if self.ready else f"not ready: {self.reason}"


@dataclass(frozen=True)
class Label:
    """One class of an image; `score` is its probability, from 0 to 1, if no other function was asked for."""

    label: str
    score: float


@dataclass(frozen=True)
class Summary:
    """`truncated`: the text was longer than the model reads, and its end was left out."""

    text: str
    truncated: bool = False


@dataclass(frozen=True)
class Tensor:
    """A tensor of the Open Inference Protocol: `data` is flat, row-major; BYTES elements are str or bytes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: tuple[Any, ...]


@dataclass(frozen=True)
class Inference:
    """An answer of the Open Inference Protocol."""

    model_name: str
    model_version: str
    id: str
    outputs: tuple[Tensor, ...]

    def output(self, name: str) -> Tensor:
        """Raises KeyError that names the outputs there are."""
        for tensor in self.outputs:
            if tensor.name == name:
                return tensor
        raise KeyError(f"no output {name!r}; there are: {', '.join(tensor.name for tensor in self.outputs)}")


@dataclass(frozen=True)
class ModelMetadata:
    """TorchServe fills in the name and the versions only."""

    name: str
    versions: tuple[str, ...]
    platform: str


@dataclass(frozen=True)
class ModelEntry:
    """One line of the list of models; `url` is the archive it came from."""

    name: str
    url: str


@dataclass(frozen=True)
class Worker:
    """`status` is READY once the model is loaded; TorchServe calls every other state UNLOADING, starting included."""

    id: str
    status: str
    pid: int
    gpu: bool
    memory_bytes: int
    start_time: str

    @property
    def ready(self) -> bool:
        return self.status == "READY"


@dataclass(frozen=True)
class Model:
    """One version of a model as the management API describes it. Delays are in milliseconds, timeouts in seconds."""

    name: str
    version: str
    url: str
    min_workers: int
    max_workers: int
    batch_size: int
    max_batch_delay: int
    response_timeout: int
    startup_timeout: int
    device_type: str | None
    loaded_at_startup: bool
    workers: tuple[Worker, ...]
    queue_free: int | None
    queue_waiting: int | None
    metadata: Mapping[str, Any] | None = None
    """What the handler says about itself: weights, engine, device. Only with `customized=True`."""

    @property
    def ready(self) -> bool:
        """Every worker that should be there is there, and has loaded the model."""
        return len(self.workers) >= max(1, self.min_workers) and all(worker.ready for worker in self.workers)


@dataclass(frozen=True)
class Sample:
    """One line of the metrics."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Metrics:
    """What the metrics address answers, parsed."""

    samples: tuple[Sample, ...] = field(repr=False)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __len__(self) -> int:
        return len(self.samples)

    def select(self, name: str, **labels: str) -> list[Sample]:
        """The samples of that exact name whose labels include these."""
        return [
            sample
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def total(self, name: str, **labels: str) -> float:
        """The sum over `select`; 0 where nothing was counted yet."""
        return sum(sample.value for sample in self.select(name, **labels))
