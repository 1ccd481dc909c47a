"""Selection of the engine that classifies images on this machine."""

import logging
from pathlib import Path
from typing import TypeVar

import torch

from handlers.core.device import Device
from handlers.engines.base import Engine, summarize
from handlers.engines.image.int8_selection import compare_speed, load_int8
from handlers.engines.image.openvino_classifier import OpenVinoClassifier
from handlers.engines.image.torch_classifier import TorchClassifier
from handlers.engines.image.torch_compiled_classifier import TorchCompiledClassifier
from handlers.engines.image.types import InputSpec

ClassifierEngine = Engine[torch.Tensor, torch.Tensor]
AnyEngine = TypeVar("AnyEngine", bound=ClassifierEngine)

logger = logging.getLogger(__name__)


def select_engine(
    folder: Path,
    device: Device,
    spec: InputSpec,
    engine: str = "auto",
    precision: str = "auto",
    max_batch: int = 32,
) -> tuple[ClassifierEngine, str]:
    """Return a loaded engine, and the reason why it was selected.

    An engine or precision that is requested and unavailable is replaced with a warning.

    Args:
        folder: The model in the hub's layout, with the files that packing prepared.
        device: The device to compute on.
        spec: The format of the batches.
        engine: `handler.engine` of the configuration.
        precision: `handler.precision` of the configuration.
        max_batch: The largest number of images in a batch.

    Raises:
        ValueError: The weights do not fit the architecture.
        RuntimeError: The weights do not fit an architecture of torchvision.
        OSError: A file of the model is missing or unreadable.
    """
    selection = _Selection(folder, device, spec, max_batch)
    selected, reason = selection.select(engine, precision)
    if selected.name == "openvino":
        # OpenVINO has separate threads. torch's threads, which run shortly before each inference, would spin at the
        # same time: on two cores that reduces the throughput by a fifth.
        torch.set_num_threads(1)
    return selected, reason


class _Selection:
    """The selection of an engine, and the warnings that were logged for it."""

    def __init__(self, folder: Path, device: Device, spec: InputSpec, max_batch: int) -> None:
        self._folder, self._device, self._spec, self._max_batch = folder, device, spec, max_batch
        self._warnings: list[str] = []

    def select(self, name: str, precision: str) -> tuple[ClassifierEngine, str]:
        engine: ClassifierEngine | None
        on_gpu = self._device.torch_device.type == "cuda"
        if precision == "int8" and (on_gpu or name not in ("auto", "openvino")):
            self._warn("int8 requires handler.engine: openvino or auto, and a CPU")
        if name == "torch-compiled":
            engine = self._load(TorchCompiledClassifier(self._spec, self._max_batch))
            if engine is not None:
                return engine, self._reason("requested in model-config.yaml")
        if name == "openvino" or not (on_gpu or name == "torch"):
            engine = self._load_openvino(precision)
            if engine is not None:
                reasons = {"openvino": "requested in model-config.yaml", "auto": "the fastest on CPUs"}
                return engine, self._reason(reasons.get(name, "the fastest engine that is available"))
        plain = TorchClassifier(self._spec, self._max_batch)
        plain.load(self._folder, self._device)
        if name == "torch":
            return plain, self._reason("requested in model-config.yaml")
        return plain, self._reason("the engine for GPUs" if on_gpu else "no other engine is available")

    def _load_openvino(self, precision: str) -> ClassifierEngine | None:
        int8 = None
        if precision in ("auto", "int8"):
            int8 = load_int8(self._folder, self._spec, precision == "int8", self._load, self._warn)
        if int8 is not None and precision == "int8":
            return int8
        engine = self._load(OpenVinoClassifier(self._spec))
        if int8 is None or engine is None:
            return int8 or engine
        is_faster = compare_speed(int8, engine, self._spec, self._max_batch, self._warn)
        engine.unload()
        if is_faster:
            return int8
        # Networks are freed in reverse order, so this one is freed as well and loaded again, without int8 in memory.
        int8.unload()
        engine = self._load(OpenVinoClassifier(self._spec))
        if engine is not None:
            engine.int8_facts = int8.int8_facts
        return engine

    def _load(self, engine: AnyEngine) -> AnyEngine | None:
        """Load an engine. Return None for any error: a slower engine follows, which reports faulty weights."""
        try:
            engine.load(self._folder, self._device)
        except Exception as error:
            self._warn(f"cannot load {engine.name}: {summarize(error)}")
            return None
        return engine

    def _warn(self, message: str) -> None:
        logger.warning("%s", message)
        self._warnings.append(message)

    def _reason(self, reason: str) -> str:
        return "; ".join([*self._warnings, reason])
