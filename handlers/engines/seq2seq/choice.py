"""Which engine generates text for this model, and why."""

import logging
from pathlib import Path

from handlers.core.device import Device
from handlers.engines.base import Engine, EngineUnavailable
from handlers.engines.native_seq2seq import NativeSeq2Seq
from handlers.engines.torch_seq2seq import TorchSeq2Seq
from handlers.text.config import SummarizerConfig
from handlers.text.generation import GeneratedTokens, GenerationBatch

Generator = Engine[GenerationBatch, GeneratedTokens]

logger = logging.getLogger(__name__)


def choose(folder: Path, config: SummarizerConfig, device: Device) -> tuple[Generator, str]:
    """A loaded engine, and the reason for it in a sentence. Raises what loading with transformers raises."""
    reason = "asked for"
    if config.engine != "torch":
        native = NativeSeq2Seq()
        try:
            native.load(folder, device)
        except EngineUnavailable as error:
            reason = f"not native: {error}"
            logger.warning("%s", reason)
        else:
            return native, reason if config.engine == "native" else "the fastest for this architecture"
    engine = TorchSeq2Seq()
    engine.load(folder, device)
    return engine, reason
