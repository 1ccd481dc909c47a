"""Which engine generates text for this model, and why."""

import json
import logging
from pathlib import Path

from handlers.core.device import FAST_INT8, Device, has_any
from handlers.engines.base import Engine, EngineUnavailable
from handlers.engines.native_seq2seq import NativeSeq2Seq
from handlers.engines.torch_seq2seq import TorchSeq2Seq
from handlers.text.architectures import check_start
from handlers.text.config import SummarizerConfig
from handlers.text.generation import GeneratedTokens, GenerationBatch
from handlers.text.model_defaults import generation_config

Generator = Engine[GenerationBatch, GeneratedTokens]

logger = logging.getLogger(__name__)


def choose(folder: Path, config: SummarizerConfig, device: Device) -> tuple[Generator, str]:
    """A loaded engine, and the reason for it in a sentence.

    What is asked for and cannot be had is replaced with a warning. Raises ConfigurationError for a model that does
    not say how decoding starts, and what loading with transformers raises.
    """
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    check_start(kind, generation_config(folder))
    said: list[str] = []
    if config.engine != "torch":
        int8 = config.precision == "int8" and _has_int8(device, said)
        native = NativeSeq2Seq(int8, config.max_batch_tokens)
        try:
            native.load(folder, device)
        except EngineUnavailable as error:
            _warn(said, f"not native: {error}")
        else:
            why = "asked for" if config.engine == "native" else "the fastest for this architecture"
            return native, "; ".join([*said, why])
    elif config.precision == "int8":
        _warn(said, "int8 needs the engine native")
    engine = TorchSeq2Seq()
    engine.load(folder, device)
    return engine, "; ".join(said or ["asked for"])


def _has_int8(device: Device, said: list[str]) -> bool:
    fast = device.torch_device.type == "cpu" and has_any(FAST_INT8)
    if not fast:
        _warn(said, f"not int8: it needs a CPU with one of {', '.join(sorted(FAST_INT8))}")
    return fast


def _warn(said: list[str], reason: str) -> None:
    logger.warning("%s", reason)
    said.append(reason)
