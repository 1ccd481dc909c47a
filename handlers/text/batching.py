"""Batches of items with equal search parameters and similar lengths, of bounded size."""

from collections.abc import Sequence

from handlers.engines.seq2seq.generation_types import MAX_BATCH_BEAMS, GenerationParameters
from handlers.text.types import TextItem

MAX_PADDED_RATIO = 4.0
"""Largest ratio of a batch's padded input to its tokens. Padding costs memory, and time in cross-attention."""


def plan_batches(items: Sequence[TextItem], max_tokens: int) -> list[list[int]]:
    """Return the indices of the items of each batch. Each item is in exactly one batch.

    Args:
        items: The items.
        max_tokens: The largest texts x (longest input + beams x longest output), which determines the size of the
            key/value cache. A larger item gets a separate batch.
    """
    groups: dict[GenerationParameters, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item.parameters.without_lengths(), []).append(index)
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
    if len(items) * beams > MAX_BATCH_BEAMS:
        return False
    cache_tokens = len(items) * (longest + beams * output)
    return cache_tokens <= max_tokens and len(lengths) * longest <= MAX_PADDED_RATIO * sum(lengths)
