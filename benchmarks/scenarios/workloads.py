"""The text workloads: lengths of inputs and summaries, and generation settings."""

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from benchmarks.scenarios.text_models import EXTRA_TOKENS, WORD, TextModel

REQUEST_COUNT, BLOCK_SIZE = 40, 8
SEED = 17
ARTICLE_LENGTHS = ((0.0, 55), (0.2, 512), (0.6, 1024), (1.0, 2451))
"""Quantiles of article lengths in tokens: four in five are above 512, two in five above 1,024."""
COPIED_PHRASE_ENDS = 0.1
"""The share of words that end a copied phrase in workload (d). With drafts of up to 5 tokens, a decoding step then
generates about 2.6 tokens, as measured for three published summaries of bart-large-cnn."""

GREEDY = MappingProxyType(
    {"num_beams": 1, "no_repeat_ngram_size": 0, "length_penalty": 1.0, "early_stopping": False}
)
BEAM_SEARCH = MappingProxyType(
    {"num_beams": 4, "no_repeat_ngram_size": 3, "length_penalty": 2.0, "early_stopping": True}
)


@dataclass(frozen=True)
class TextRequest:
    """A text and the length of its summary. The length is fixed because random weights do not end a summary."""

    text: str
    prefix: str
    new_tokens: int
    settings: Mapping[str, Any]

    @property
    def parameters(self) -> dict[str, Any]:
        """Generation parameters with the names of transformers' `generate()`."""
        return {**self.settings, "min_new_tokens": self.new_tokens, "max_new_tokens": self.new_tokens}


@dataclass(frozen=True)
class Workload:
    """Lengths of requests in tokens. Each block of `BLOCK_SIZE` requests has about the same length distribution.

    Attributes:
        settings: Generation parameters.
        clients: The only numbers of clients to measure, if the run has any of them.
        phrase_ends: Share of words that end a copied phrase. If it is 1, nothing but single words is copied.
    """

    title: str
    input_lengths: Sequence[int]
    output_lengths: Sequence[int]
    settings: Mapping[str, Any]
    clients: tuple[int, ...] = ()
    phrase_ends: float = 1.0

    @property
    def tokens_per_answer(self) -> float:
        """The average number of new tokens, times the number of beams."""
        return statistics.mean(self.output_lengths) * int(self.settings["num_beams"])

    def requests(self, model: TextModel) -> list[TextRequest]:
        """Return the same requests in every call. Input lengths include the extra tokens."""
        rng = random.Random(SEED)
        return [
            TextRequest(
                draw_text(rng, length - EXTRA_TOKENS, model, self.phrase_ends),
                model.prefix,
                new_tokens,
                self.settings,
            )
            for length, new_tokens in zip(self.input_lengths, self.output_lengths, strict=True)
        ]


def draw_text(rng: random.Random, words: int, model: TextModel, phrase_ends: float = 1.0) -> str:
    """Return random words. The first half of the model's words end a copied phrase."""
    half = model.word_count // 2
    numbers = (rng.randrange(half) + half * (rng.random() >= phrase_ends) for _ in range(words))
    return " ".join(f"{WORD}{number}" for number in numbers)


def make_probe(model: TextModel) -> TextRequest:
    """Return a short request to test whether a server answers."""
    return TextRequest(draw_text(random.Random(SEED), 16, model), model.prefix, 4, GREEDY)


def _draw_lengths(*quantiles: tuple[float, int], seed: int = SEED) -> tuple[int, ...]:
    """Return lengths at equal steps of a distribution, which is given by quantiles (share, length).

    Each block contains one length out of each of `BLOCK_SIZE` equal parts of the distribution, in random order.
    """
    rng = np.random.default_rng(seed)
    shares, values = zip(*quantiles, strict=True)
    lengths = np.interp(np.linspace(0, 1, REQUEST_COUNT), shares, values)
    parts = rng.permuted(lengths.round().astype(int).reshape(BLOCK_SIZE, -1), axis=1)
    return tuple(rng.permuted(parts.T, axis=1).flatten().tolist())


_ARTICLES = _draw_lengths(*ARTICLE_LENGTHS)
_UNIFORM_SEED = SEED + 1
_INPUTS, _OUTPUTS = (256,) * REQUEST_COUNT, (32,) * REQUEST_COUNT
WORKLOADS = {
    "a": Workload("256 tokens in, 32 out, greedy", _INPUTS, _OUTPUTS, GREEDY),
    "b": Workload(
        "articles of 55 to 2,451 tokens in, 30 to 142 out, greedy",
        _ARTICLES,
        _draw_lengths((0.0, 30), (1.0, 142), seed=_UNIFORM_SEED),
        GREEDY,
        clients=(BLOCK_SIZE,),
    ),
    "c": Workload(
        "the same articles in, 56 to 142 out, four beams",
        _ARTICLES,
        _draw_lengths((0.0, 56), (1.0, 142), seed=_UNIFORM_SEED),
        BEAM_SEARCH,
        clients=(BLOCK_SIZE,),
    ),
    "d": Workload(
        "as (a), with copied phrases",
        _INPUTS,
        _OUTPUTS,
        GREEDY,
        clients=(1, BLOCK_SIZE),
        phrase_ends=COPIED_PHRASE_ENDS,
    ),
}
