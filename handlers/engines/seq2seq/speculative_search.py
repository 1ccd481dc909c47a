"""Greedy search that verifies drafts from the source: several tokens of a text in a step, with the same result.

Leviathan et al. 2023, https://arxiv.org/abs/2211.17192, with drafts of `PromptLookup` instead of a smaller network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import eq

import torch
from torch import Tensor

from handlers.core.step_reporting import report_draft_tokens, report_step
from handlers.engines.seq2seq.draft_lengths import StepTimes, choose_draft_lengths
from handlers.engines.seq2seq.encoder_decoder import EncoderDecoder
from handlers.engines.seq2seq.generation_types import GeneratedTokens, GenerationParameters
from handlers.engines.seq2seq.logits_processors import PADDING_ID, LogitsProcessors, process_logits
from handlers.engines.seq2seq.prompt_lookup import PromptLookup
from handlers.engines.seq2seq.ragged_cache import RaggedCache


@dataclass
class _Row:
    """The state of a text.

    Attributes:
        parameters: Its generation parameters.
        lookup: Its drafts.
        tokens: The start token and the generated tokens.
        draft: The drafted tokens of the running step.
        num_drafted: The number of drafted tokens so far.
        num_accepted: The number of drafted tokens that are part of the text.
        is_finished: Whether the text has its end token or its `max_new_tokens`.
    """

    parameters: GenerationParameters
    lookup: PromptLookup
    tokens: list[int]
    draft: Sequence[int] = ()
    num_drafted: int = 0
    num_accepted: int = 0
    is_finished: bool = False


def run_speculative_search(
    network: EncoderDecoder,
    cache: RaggedCache,
    processors: LogitsProcessors,
    parameters: Sequence[GenerationParameters],
    texts: Sequence[Sequence[int]],
    max_draft_tokens: int,
    step_times: StepTimes,
) -> GeneratedTokens:
    """Return the new tokens of each text in `cache`, up to its end token or its `max_new_tokens`.

    Args:
        network: The network that computes the decoding steps.
        cache: The cache with the encoded texts. It is empty afterwards.
        processors: The logits processors of the model.
        parameters: The parameters of each text.
        texts: The token ids of each text that drafts are taken from.
        max_draft_tokens: The largest number of drafted tokens of a text in a step.
        step_times: The times of the network's decoding steps.
    """
    start = processors.decoder_start_token_id
    rows = []
    for params, text in zip(parameters, texts, strict=True):
        # Repetition is excluded with no_repeat_ngram_size, so the generated text contains no useful drafts then.
        lookup = PromptLookup(text, not params.no_repeat_ngram_size, processors.vocab_size)
        rows.append(_Row(params, lookup, [start]))
    all_rows = list(rows)
    max_length = max(params.max_new_tokens for params in parameters) + 1
    sequences = torch.full((len(rows), max_length), start, device=network.shape.device)
    while rows:
        report_step()
        _draft_tokens(rows, max_draft_tokens, step_times)
        logits = _decode_drafts(network, cache, rows, sequences)
        next_tokens = _select_tokens(processors, rows, sequences, logits)
        _accept_tokens(processors, rows, sequences, next_tokens)
        _remove_finished(cache, rows, sequences)
    report_draft_tokens(sum(row.num_drafted for row in all_rows), sum(row.num_accepted for row in all_rows))
    return [row.tokens[1:] for row in all_rows]


def _draft_tokens(rows: Sequence[_Row], max_draft_tokens: int, step_times: StepTimes) -> None:
    """Set the drafts of a step."""
    drafts = [
        row.lookup.find_next(min(row.parameters.max_new_tokens - len(row.tokens), max_draft_tokens))
        for row in rows
    ]
    if any(drafts):
        acceptances = [row.lookup.acceptance for row in rows]
        lengths = choose_draft_lengths(acceptances, list(map(len, drafts)), step_times)
        drafts = [draft[:length] for draft, length in zip(drafts, lengths, strict=True)]
    for row, draft in zip(rows, drafts, strict=True):
        row.draft = draft


def _decode_drafts(
    network: EncoderDecoder, cache: RaggedCache, rows: Sequence[_Row], sequences: Tensor
) -> Tensor:
    """Write the drafts into `sequences`, and return the logits after the newest token and each drafted token."""
    tokens = [token for row in rows for token in (row.tokens[-1], *row.draft)]
    for index, row in enumerate(rows):
        if row.draft:
            length = len(row.tokens)
            sequences[index, length : length + len(row.draft)] = torch.tensor(row.draft)
    cache_position = cache.start_step(
        [len(row.tokens) - 1 for row in rows], [1 + len(row.draft) for row in rows]
    )
    return network.decode_step(torch.tensor(tokens, device=sequences.device), cache_position, cache)


def _select_tokens(
    processors: LogitsProcessors, rows: Sequence[_Row], sequences: Tensor, logits: Tensor
) -> list[int]:
    """Return the token with the highest score after the newest token and each drafted token.

    The logits after a drafted token are processed as if the draft was right until there.
    """
    indices: list[int] = []
    lengths: list[int] = []
    for index, row in enumerate(rows):
        indices += [index] * (1 + len(row.draft))
        lengths += range(len(row.tokens), len(row.tokens) + len(row.draft) + 1)
    longest = max(lengths)
    parameters = [rows[index].parameters for index in indices]
    if min(lengths) == longest:
        input_ids = sequences[: len(rows), :longest]
    else:
        # Move the last token of each row to the last column.
        columns = torch.arange(longest) + torch.tensor(lengths)[:, None] - longest
        input_ids = sequences[torch.tensor(indices)[:, None], columns.clamp(min=0)]
        input_ids[columns < 0] = PADDING_ID
    scores = process_logits(processors, parameters, input_ids, logits, lengths)
    next_tokens: list[int] = scores.argmax(-1).tolist()
    return next_tokens


def _accept_tokens(
    processors: LogitsProcessors, rows: Sequence[_Row], sequences: Tensor, next_tokens: Sequence[int]
) -> None:
    """Add the next tokens to their texts, up to the first one of each row that differs from its draft."""
    first = 0
    for row in rows:
        new_tokens: list[int] = []
        for position, token in enumerate(next_tokens[first : first + len(row.draft) + 1]):
            new_tokens.append(token)
            length = len(row.tokens) + len(new_tokens)
            row.is_finished = token in processors.eos_token_ids or length > row.parameters.max_new_tokens
            if row.is_finished or row.draft[position : position + 1] != [token]:
                break
        first += len(row.draft) + 1
        row.num_drafted += len(row.draft)
        row.num_accepted += sum(map(eq, row.draft, new_tokens))
        row.tokens += new_tokens
        row.lookup.extend(new_tokens)
    last = [len(row.tokens) - 1 for row in rows]
    sequences[range(len(rows)), last] = torch.tensor([row.tokens[-1] for row in rows])


def _remove_finished(cache: RaggedCache, rows: list[_Row], sequences: Tensor) -> None:
    """Remove finished texts."""
    for index in reversed(range(len(rows))):
        if rows[index].is_finished:
            # The last row, which this loop has already visited, takes the index of the finished one.
            cache.remove_sequence(index)
            sequences[index] = sequences[len(rows) - 1]
            rows[index] = rows[-1]
            rows.pop()
