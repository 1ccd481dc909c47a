"""Input and output of the generation engines, independent of any library."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

MAX_BATCH_BEAMS = 256
"""The largest number of texts x beams in a batch. Each row has a score for every token of the vocabulary."""


@dataclass(frozen=True)
class GenerationParameters:
    """The parameters of one summary, with the meaning of those in `transformers.GenerationConfig`.

    Lengths are numbers of new tokens, including the end token but not the decoder's start token. Decoding is greedy
    search for one beam and beam search for more beams. It never samples. Texts whose parameters
    differ only in lengths can share a batch.
    """

    max_new_tokens: int
    min_new_tokens: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    early_stopping: bool | Literal["never"] = False

    def without_lengths(self) -> Self:
        """Return the parameters that all texts of a batch must have in common."""
        return replace(self, max_new_tokens=1, min_new_tokens=0)


@dataclass(frozen=True)
class GenerationBatch:
    """A batch: token ids and generation parameters of each text.

    Parameters may differ only in `min_new_tokens` and `max_new_tokens`.
    """

    texts: Sequence[Sequence[int]]
    parameters: Sequence[GenerationParameters]


GeneratedTokens = list[list[int]]
"""The new tokens of each text: the end token if one was generated, but no start token and no padding."""
