"""The summarizer's settings in `model-config.yaml`: a server's limits on what a request may ask for."""

from dataclasses import dataclass
from typing import Literal

from handlers.core.config import HandlerConfig


@dataclass(frozen=True)
class SummarizerConfig(HandlerConfig):
    """Limits are the server's: a request beyond them is refused, a model's own default is cut to them."""

    engine: Literal["auto", "native", "torch"] = "auto"
    """`native` is our own generation, for T5 and BART; `torch` is transformers'."""

    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    """`auto` is bf16 where the hardware has it fast (a GPU, AMX, AVX512-BF16), fp32 otherwise; int8 is the engine
    native's on a CPU, and only where it is asked for."""

    max_items: int = 16
    """Texts in one request."""

    max_characters: int = 1_000_000
    """Characters of one text; a model reads a few thousand of them."""

    max_input_tokens: int | None = None
    """Tokens of one text, its prefix and special tokens included; unset: the length of the model's tokenizer. It may
    be above that, up to the model's positions; T5 and its relatives have relative ones, and no such bound."""

    max_new_tokens: int = 512
    """Tokens of one summary."""

    max_num_beams: int = 8

    max_batch_tokens: int = 16_384
    """What one run of the model may hold: texts x (longest input + beams x longest output)."""
