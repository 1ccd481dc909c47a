"""What a generation engine is given: plain types that no library owns."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self


@dataclass(frozen=True)
class GenerationParameters:
    """How one summary is generated; items whose parameters differ in nothing but lengths can share a batch.

    Lengths count new tokens: the decoder's start token is not one of them, the end token is. Decoding is greedy for
    one beam and beam search for more, never sampling. Each means what it does in `transformers.GenerationConfig`.
    """

    max_new_tokens: int
    min_new_tokens: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    early_stopping: bool | Literal["never"] = False

    def search(self) -> Self:
        """Without the lengths."""
        return replace(self, max_new_tokens=1, min_new_tokens=0)


@dataclass(frozen=True)
class GenerationBatch:
    """Inputs of one run: token ids of each text, and what its request asks for; see `GenerationParameters.search`."""

    texts: Sequence[Sequence[int]]
    parameters: Sequence[GenerationParameters]


GeneratedTokens = list[list[int]]
"""New tokens of each text: no start token, no padding, but the end token where one was generated."""
