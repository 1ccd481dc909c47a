"""Batches out of items: one way to search, similar lengths, bounded size."""

from collections.abc import Sequence

from handlers.text.generation import GenerationParameters
from handlers.text.types import TextItem

MAX_PADDED_RATIO = 4.0
"""Of a batch's input, at most three quarters are padding: it costs memory, and time where the source is read."""

MAX_ROWS = 256
"""Texts x beams of a batch: each has a score for every word of the vocabulary."""


def plan(items: Sequence[TextItem], max_tokens: int) -> list[list[int]]:
    """Indices of the items of each batch; every item is in exactly one.

    `max_tokens` bounds texts x (longest input + beams x longest output), which the key/value cache grows with; an
    item above it makes a batch of its own.
    """
    groups: dict[GenerationParameters, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item.parameters.search(), []).append(index)
    batches: list[list[int]] = []
    for indices in groups.values():
        batch: list[int] = []
        batches.append(batch)
        for index in sorted(indices, key=lambda index: len(items[index].input_ids)):
            if batch and not _fits([items[other] for other in (*batch, index)], max_tokens):
                batch = []
                batches.append(batch)
            batch.append(index)
    return batches


def _fits(items: Sequence[TextItem], max_tokens: int) -> bool:
    lengths = [len(item.input_ids) for item in items]
    longest, output = max(lengths), max(item.parameters.max_new_tokens for item in items)
    beams = items[0].parameters.num_beams
    if len(items) * beams > MAX_ROWS:
        return False
    held = len(items) * (longest + beams * output)
    return held <= max_tokens and len(lengths) * longest <= MAX_PADDED_RATIO * sum(lengths)
