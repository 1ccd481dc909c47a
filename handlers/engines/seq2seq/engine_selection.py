"""Selection of the engine that generates text with a model on this machine."""

import logging
from pathlib import Path
from typing import Protocol

from handlers.core.device import FAST_INT8, Device, has_any
from handlers.engines.base import PREPARED_DIR, Engine, EngineUnavailable
from handlers.engines.seq2seq.generation_config import (
    check_decoder_start_token,
    read_config_json,
    read_generation_config,
)
from handlers.engines.seq2seq.generation_types import GeneratedTokens, GenerationBatch
from handlers.engines.seq2seq.native_seq2seq import NativeSeq2Seq
from handlers.engines.seq2seq.step_kernels import load_step_kernels
from handlers.engines.seq2seq.torch_seq2seq import TorchSeq2Seq


class Seq2SeqEngine(Engine[GenerationBatch, GeneratedTokens], Protocol):
    """The interface of an engine that generates text."""

    @property
    def captures_steps(self) -> bool:
        """Whether the first run of each size takes longer, because it captures CUDA graphs."""
        ...


_REQUESTED = "requested in model-config.yaml"
logger = logging.getLogger(__name__)


def select_engine(
    folder: Path,
    device: Device,
    engine: str = "auto",
    precision: str = "auto",
    max_batch_tokens: int = 16_384,
    prompt_lookup_num_tokens: int | None = None,
) -> tuple[Seq2SeqEngine, str]:
    """Return a loaded engine, and the reason why it was selected.

    An engine or precision that is requested and unavailable is replaced with a warning.

    Args:
        folder: The model in the hub's layout, with the files that packing prepared.
        device: The device to compute on.
        engine: `handler.engine` of the configuration.
        precision: `handler.precision` of the configuration.
        max_batch_tokens: The largest batch: texts x (longest input + beams x longest output).
        prompt_lookup_num_tokens: The largest number of drafted tokens of a text in a step, or None for no drafts.

    Raises:
        ConfigurationError: The model's files do not set the token that decoding starts with.
        ValueError: The weights do not fit the architecture.
        OSError: A file of the model is missing or unreadable.
    """
    check_decoder_start_token(read_config_json(folder).get("model_type"), read_generation_config(folder))
    warnings: list[str] = []
    if engine != "torch":
        int8 = precision == "int8" and _supports_int8(folder, device, warnings)
        native = NativeSeq2Seq(int8, max_batch_tokens, prompt_lookup_num_tokens)
        try:
            native.load(folder, device)
        except EngineUnavailable as error:
            _warn(warnings, str(error))
        else:
            reason = _REQUESTED if engine == "native" else "the fastest for this architecture"
            return native, "; ".join([*warnings, reason])
    elif precision == "int8":
        _warn(warnings, "int8 requires handler.engine: native")
    generic = TorchSeq2Seq()
    generic.load(folder, device)
    return generic, "; ".join(warnings or [_REQUESTED])


def _supports_int8(folder: Path, device: Device, warnings: list[str]) -> bool:
    """Return whether int8 is faster here, by int8 instructions or by the compiled decoding step."""
    if device.torch_device.type == "cpu":
        if has_any(FAST_INT8):
            return True
        try:
            load_step_kernels(folder / PREPARED_DIR)
        except EngineUnavailable as error:
            _warn(
                warnings, f"int8 requires a CPU with one of {', '.join(sorted(FAST_INT8))}, or AVX2: {error}"
            )
        else:
            return True
    else:
        _warn(warnings, "int8 requires a CPU")
    return False


def _warn(warnings: list[str], message: str) -> None:
    logger.warning("%s", message)
    warnings.append(message)
