"""Which engine classifies images on this machine, and why."""

import json
import logging
from pathlib import Path

import torch

from handlers.core.device import FAST_INT8, Device, has_any
from handlers.engines.base import FACTS, PREPARED, Engine, EngineUnavailable
from handlers.engines.int8 import MIN_AGREEMENT
from handlers.engines.openvino_classifier import INT8, OpenVinoClassifier
from handlers.engines.torch_classifier import TorchClassifier
from handlers.engines.torch_compiled_classifier import TorchCompiledClassifier
from handlers.vision.types import InputSpec, VisionConfig

ClassifierEngine = Engine[torch.Tensor, torch.Tensor]

FAST_BF16 = frozenset({"amx_bf16", "avx512_bf16"})
"""CPU flags with which a classifier gains from bf16."""

logger = logging.getLogger(__name__)


def choose(
    folder: Path, config: VisionConfig, device: Device, spec: InputSpec
) -> tuple[ClassifierEngine, str]:
    """A loaded engine, and the reason for it in a sentence.

    What is asked for by name and cannot be had is replaced with a warning. Raises what loading in plain torch raises.
    """
    engine, reason = _choose(folder, config, device, spec)
    if engine.name == "openvino":
        # It has threads of its own. torch's, used for a moment before each run, would then spin beside them: on two
        # cores that cost a fifth of the throughput.
        torch.set_num_threads(1)
    return engine, reason


def _choose(
    folder: Path, config: VisionConfig, device: Device, spec: InputSpec
) -> tuple[ClassifierEngine, str]:
    on_gpu = device.torch_device.type == "cuda"
    said: list[str] = []
    if config.precision == "int8" and (on_gpu or config.engine not in ("auto", "openvino")):
        _warn(said, "int8 needs the engine openvino on a CPU")
    if config.engine == "torch-compiled":
        engine = _loaded(TorchCompiledClassifier(spec, config.max_batch), folder, device, said)
        if engine is not None:
            return engine, _reason(said, "asked for")
    if config.engine == "openvino" or not (on_gpu or config.engine == "torch"):
        engine = _openvino(folder, config, device, spec, said)
        if engine is not None:
            why = {"openvino": "asked for", "auto": "the fastest on CPUs"}.get(config.engine, "the next best")
            return engine, _reason(said, why)
    plain = TorchClassifier(spec, config.max_batch)
    plain.load(folder, device)
    why = "asked for" if config.engine == "torch" else "the engine for GPUs" if on_gpu else "what is left"
    return plain, _reason(said, why)


def _openvino(
    folder: Path, config: VisionConfig, device: Device, spec: InputSpec, said: list[str]
) -> ClassifierEngine | None:
    by_itself = config.precision == "auto" and has_any(FAST_INT8) and _agrees(folder, said)
    if config.precision == "int8" or by_itself:
        engine = _loaded(OpenVinoClassifier(spec, int8=True), folder, device, said)
        if engine is not None:
            return engine
    return _loaded(OpenVinoClassifier(spec), folder, device, said)


def _agrees(folder: Path, said: list[str]) -> bool:
    """Whether int8, where the archive has it, labels enough of its images as fp32 does; if not, that is said."""
    if not (folder / PREPARED / INT8).exists():
        return False
    facts = json.loads((folder / PREPARED / FACTS).read_text())
    agreement: float = facts["openvino"]["int8"]["agreement"]
    if agreement < MIN_AGREEMENT:
        _warn(
            said,
            f"not int8: {agreement:.1%} of its images are labeled as in fp32, {MIN_AGREEMENT:.0%} are enough",
        )
    return agreement >= MIN_AGREEMENT


def _loaded(
    engine: ClassifierEngine, folder: Path, device: Device, said: list[str]
) -> ClassifierEngine | None:
    """Whatever an engine fails with, there is a slower one; what is wrong with the weights, that one will say."""
    try:
        engine.load(folder, device)
    except Exception as error:
        reason = (
            str(error) if isinstance(error, EngineUnavailable) else f"{type(error).__name__}: {error}"[:200]
        )
        _warn(said, f"not {engine.name}: {reason}")
        return None
    return engine


def _warn(said: list[str], reason: str) -> None:
    logger.warning("%s", reason)
    said.append(reason)


def _reason(said: list[str], why: str) -> str:
    return "; ".join([*said, why])
