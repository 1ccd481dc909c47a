"""Batches out of items: equal parameters, similar lengths, bounded size."""

from collections.abc import Sequence

import numpy as np

from handlers.text.generation import GenerationBatch, GenerationParameters
from handlers.text.types import TextItem

MAX_PADDED_RATIO = 2.0
"""At most half of a batch's input is padding."""


def plan(items: Sequence[TextItem], max_tokens: int) -> list[list[int]]:
    """Indices of the items of each batch; every item is in exactly one.

    `max_tokens` bounds rows x beams x (longest input + longest output), which the key/value cache grows with; an item
    above it makes a batch of its own.
    """
    groups: dict[GenerationParameters, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item.parameters, []).append(index)
    batches: list[list[int]] = []
    for parameters, indices in groups.items():
        batch: list[int] = []
        batches.append(batch)
        for index in sorted(indices, key=lambda index: len(items[index].input_ids)):
            lengths = [len(items[other].input_ids) for other in (*batch, index)]
            if batch and not _fits(lengths, parameters, max_tokens):
                batch = []
                batches.append(batch)
            batch.append(index)
    return batches


def collate(items: Sequence[TextItem], pad_id: int) -> GenerationBatch:
    """One batch of items with equal parameters, padded on the right to the longest."""
    longest = max(len(item.input_ids) for item in items)
    input_ids = np.full((len(items), longest), pad_id, dtype=np.int64)
    attention_mask = np.zeros_like(input_ids)
    for row, item in enumerate(items):
        input_ids[row, : len(item.input_ids)] = item.input_ids
        attention_mask[row, : len(item.input_ids)] = 1
    return GenerationBatch(input_ids, attention_mask, items[0].parameters)


def _fits(lengths: Sequence[int], parameters: GenerationParameters, max_tokens: int) -> bool:
    longest = max(lengths)
    held = len(lengths) * parameters.num_beams * (longest + parameters.max_new_tokens)
    return held <= max_tokens and len(lengths) * longest <= MAX_PADDED_RATIO * sum(lengths)
