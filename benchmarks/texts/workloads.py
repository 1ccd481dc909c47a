"""The workloads: how long the texts are, how long their summaries, and how they are generated."""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from benchmarks.texts.models import WORD, TextModel

COUNT, BLOCK = 40, 8
SEED = 17
ARTICLES = ((0.0, 55), (0.2, 512), (0.6, 1024), (1.0, 2451))
"""Shares of all articles, and the tokens that these have at most: four in five above 512, two in five above 1,024."""

GREEDY = MappingProxyType(
    {"num_beams": 1, "no_repeat_ngram_size": 0, "length_penalty": 1.0, "early_stopping": False}
)
BEAMS = MappingProxyType(
    {"num_beams": 4, "no_repeat_ngram_size": 3, "length_penalty": 2.0, "early_stopping": True}
)


@dataclass(frozen=True)
class Asked:
    """One request. A text of random weights does not end by itself, so its length is asked for."""

    text: str
    new_tokens: int
    settings: Mapping[str, Any]

    @property
    def parameters(self) -> dict[str, Any]:
        """As `generate` of transformers takes them, and so do we."""
        return {**self.settings, "min_new_tokens": self.new_tokens, "max_new_tokens": self.new_tokens}


@dataclass(frozen=True)
class Workload:
    """Every eight requests in a row are alike: one length out of each eighth of all, in and out."""

    name: str
    title: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    settings: Mapping[str, Any]

    def requests(self, model: TextModel) -> list[Asked]:
        """Texts of `inputs` tokens, what stands around the words included; the same ones at every call."""
        draw = random.Random(SEED)
        return [
            Asked(text(draw, tokens - model.around, model), new, self.settings)
            for tokens, new in zip(self.inputs, self.outputs, strict=True)
        ]


def text(draw: random.Random, words: int, model: TextModel) -> str:
    return " ".join(f"{WORD}{draw.randrange(model.words)}" for _ in range(words))


def probe(model: TextModel) -> Asked:
    """A short one, to see whether a server answers."""
    return Asked(text(random.Random(SEED), 16, model), 4, GREEDY)


def quantile(share: float, points: Sequence[tuple[float, int]]) -> int:
    """The length that this share of all do not exceed: straight lines between the points."""
    for (low, shorter), (high, longer) in itertools.pairwise(points):
        if share <= high:
            return round(shorter + (longer - shorter) * (share - low) / (high - low))
    raise ValueError(f"{share} is above {points[-1][0]}")


def spread(points: Sequence[tuple[float, int]], seed: int) -> tuple[int, ...]:
    """COUNT lengths at equal steps of the distribution, in blocks with one out of each eighth of them, shuffled."""
    draw = random.Random(seed)
    lengths = [quantile(at / (COUNT - 1), points) for at in range(COUNT)]
    blocks: list[list[int]] = [[] for _ in range(COUNT // BLOCK)]
    for eighth in range(BLOCK):
        part = lengths[eighth * len(blocks) : (eighth + 1) * len(blocks)]
        draw.shuffle(part)
        for block, length in zip(blocks, part, strict=True):
            block.append(length)
    for block in blocks:
        draw.shuffle(block)
    return tuple(length for block in blocks for length in block)


def _even(low: int, high: int) -> tuple[int, ...]:
    return spread(((0.0, low), (1.0, high)), SEED + 1)


WORKLOADS = {
    work.name: work
    for work in (
        Workload("a", "256 tokens in, 32 out, greedy", (256,) * COUNT, (32,) * COUNT, GREEDY),
        Workload(
            "b", "articles of 55 to 2,451 tokens in, 30 to 142 out, greedy",
            spread(ARTICLES, SEED), _even(30, 142), GREEDY,
        ),
        Workload(
            "c", "the same in, 56 to 142 out, four beams", spread(ARTICLES, SEED), _even(56, 142), BEAMS
        ),
    )
}  # fmt: skip
