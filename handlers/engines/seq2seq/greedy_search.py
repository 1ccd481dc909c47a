"""Greedy search: each step selects the token with the highest score, and a finished text leaves the batch."""

from collections.abc import Sequence

import torch

from handlers.core.step_reporting import report_step
from handlers.engines.seq2seq.cache import EncoderDecoderCache
from handlers.engines.seq2seq.encoder_decoder import EncoderDecoder
from handlers.engines.seq2seq.generation_types import GeneratedTokens, GenerationParameters
from handlers.engines.seq2seq.logits_processors import LogitsProcessors, process_logits


def run_greedy_search(
    network: EncoderDecoder,
    cache: EncoderDecoderCache,
    processors: LogitsProcessors,
    parameters: Sequence[GenerationParameters],
) -> GeneratedTokens:
    """Return the new tokens of each text in `cache`, up to its end token or its `max_new_tokens`.

    Args:
        network: The network that computes the decoding steps.
        cache: The cache with the encoded texts. It is empty afterwards.
        processors: The logits processors of the model.
        parameters: The parameters of each text.
    """
    generated: GeneratedTokens = [[] for _ in parameters]
    text_indices = list(range(len(parameters)))  # the index of each row's text
    max_steps = max(params.max_new_tokens for params in parameters)
    sequences = torch.full(
        (len(parameters), max_steps + 1), processors.decoder_start_token_id, device=network.shape.device
    )
    for cache_position in range(max_steps):
        report_step()
        input_ids = sequences[: len(text_indices), : cache_position + 1]
        logits = network.decode_step(input_ids[:, -1], cache_position, cache)
        scores = process_logits(processors, [parameters[text] for text in text_indices], input_ids, logits)
        next_tokens = scores.argmax(-1)
        sequences[: len(text_indices), cache_position + 1] = next_tokens
        for row, token in reversed(list(enumerate(next_tokens.tolist()))):
            text = text_indices[row]
            if token in processors.eos_token_ids or cache_position + 1 == parameters[text].max_new_tokens:
                generated[text] = sequences[row, 1 : cache_position + 2].tolist()
                # The last row, which this loop has already visited, takes the index of the finished one.
                cache.remove_sequence(row)
                sequences[row] = sequences[len(text_indices) - 1]
                text_indices[row] = text_indices[-1]
                text_indices.pop()
        if not text_indices:
            break
    return generated
