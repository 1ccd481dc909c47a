"""What a generation engine is given: plain types that no library owns."""

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class GenerationParameters:
    """How one summary is generated; items with equal parameters can share a batch.

    Lengths count new tokens: the decoder's start token is not one of them, the end token is. Decoding is greedy for
    one beam and beam search for more, never sampling. Each means what it does in `transformers.GenerationConfig`.
    """

    max_new_tokens: int
    min_new_tokens: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    early_stopping: bool | Literal["never"] = False


@dataclass(frozen=True)
class GenerationBatch:
    """Inputs of one run, padded on the right.

    input_ids: int64 [rows, longest input]; attention_mask: int64 of that shape, 1 for a token and 0 for padding.
    """

    input_ids: np.ndarray
    attention_mask: np.ndarray
    parameters: GenerationParameters


GeneratedTokens = list[list[int]]
"""New tokens of each row: no start token, no padding, but the end token where one was generated."""
