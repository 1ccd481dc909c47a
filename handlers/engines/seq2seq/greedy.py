"""Greedy search: the likeliest token at each step; a text that has ended leaves the batch."""

from collections.abc import Sequence

import torch

from handlers.core.progress import report_step
from handlers.engines.seq2seq.cache import Cache
from handlers.engines.seq2seq.logits_processors import LogitsProcessors, process_logits
from handlers.engines.seq2seq.network import Network
from handlers.text.generation import GeneratedTokens, GenerationParameters


def greedy(
    network: Network,
    cache: Cache,
    processors: LogitsProcessors,
    requests: Sequence[GenerationParameters],
) -> GeneratedTokens:
    """New tokens of each text in `cache`, up to its end or its request's maximum."""
    generated: GeneratedTokens = [[] for _ in requests]
    texts = list(range(len(requests)))  # the text of each row
    longest = max(request.max_new_tokens for request in requests)
    sequences = torch.full(
        (len(requests), longest + 1), processors.decoder_start_token_id, device=network.shape.device
    )
    for position in range(longest):
        report_step()
        so_far = sequences[: len(texts), : position + 1]
        logits = network.step(so_far[:, -1], position, cache)
        scores = process_logits(processors, [requests[text] for text in texts], so_far, logits)
        chosen = scores.argmax(-1)
        sequences[: len(texts), position + 1] = chosen
        for row, token in reversed(list(enumerate(chosen.tolist()))):
            text = texts[row]
            if token in processors.eos_token_ids or position + 1 == requests[text].max_new_tokens:
                generated[text] = sequences[row, 1 : position + 2].tolist()
                # The last row takes its place; it was looked at before.
                cache.drop(row)
                sequences[row] = sequences[len(texts) - 1]
                texts[row] = texts[-1]
                texts.pop()
        if not texts:
            break
    return generated
