"""The summarizer's settings in `model-config.yaml`."""

from dataclasses import dataclass
from typing import Literal

from handlers.core.config import HandlerConfig


@dataclass(frozen=True)
class SummarizerConfig(HandlerConfig):
    """The engine and the limits. A request above a limit is rejected. A model's default above a limit is reduced."""

    engine: Literal["auto", "native", "torch"] = "auto"
    """`native` generates for T5, BART and related models with the code of this project, `torch` with transformers'
    `generate()`."""

    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    """`auto` is bf16 on hardware that is fast in it (a GPU, AMX, AVX512-BF16), and fp32 otherwise. int8 requires the
    engine `native` on a CPU and is never selected by `auto`."""

    max_items: int = 16
    """Texts in one request."""

    max_characters: int = 1_000_000
    """Characters of one text. Models read a few thousand of them."""

    max_input_tokens: int | None = None
    """Tokens of one text, including prefix and special tokens. The default is the length of the model's tokenizer. It
    may be higher, up to the number of the model's positions; T5 and related models have relative positions and no
    such limit."""

    max_new_tokens: int = 512
    """Tokens of one summary."""

    max_num_beams: int = 8
    """Beams of one summary."""

    prompt_lookup_num_tokens: int | None = None
    """Maximum number of tokens that greedy search drafts from the text for one decoding step. null disables drafts.
    They require the engine `native` on a CPU."""

    max_batch_tokens: int = 16_384
    """Size of one batch: texts x (longest input + beams x longest output)."""
