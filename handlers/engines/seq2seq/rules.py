"""What changes the scores of the next token: lengths, forced and forbidden tokens, repetition.

The rarer ones are transformers' own; those that each request sets are written for rows of different requests, and
give the same scores. They come in transformers' order (GenerationMixin._get_logits_processor).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import (
    ExponentialDecayLengthPenalty,
    GenerationConfig,
    InfNanRemoveLogitsProcessor,
    LogitNormalization,
    LogitsProcessorList,
    NoBadWordsLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

from handlers.engines.base import EngineUnavailable
from handlers.text.generation import GenerationParameters

_NEVER = float("-inf")


class ModelRules:
    """What the model's own generation config asks for, alike for every request."""

    def __init__(self, own: GenerationConfig, vocabulary: int, device: torch.device) -> None:
        """Raises EngineUnavailable for what looks at the source's tokens, and for a start that is not one token."""
        for name, off in (("encoder_repetition_penalty", 1.0), ("encoder_no_repeat_ngram_size", 0)):
            if getattr(own, name, None) not in (None, off):
                raise EngineUnavailable(f"the model's generation config sets {name}")
        start = own.bos_token_id if own.decoder_start_token_id is None else own.decoder_start_token_id
        if not isinstance(start, int):
            raise EngineUnavailable(f"the model's decoder starts with {start}")
        self.start = start
        self.ends, self.last = (
            [token for token in _list(tokens) if token < vocabulary]
            for tokens in (own.eos_token_id, own.forced_eos_token_id)
        )
        self.first = own.forced_bos_token_id
        ends = torch.tensor(self.ends, device=device)
        self.before, self.after = LogitsProcessorList(), LogitsProcessorList()
        if own.sequence_bias is not None:
            self.before.append(SequenceBiasLogitsProcessor(own.sequence_bias))
        if own.repetition_penalty not in (None, 1.0):
            self.before.append(RepetitionPenaltyLogitsProcessor(own.repetition_penalty))
        if own.bad_words_ids is not None:
            self.before.append(NoBadWordsLogitsProcessor(own.bad_words_ids, ends))
        if own.remove_invalid_values:
            self.after.append(InfNanRemoveLogitsProcessor())
        if own.exponential_decay_length_penalty is not None:
            self.after.append(ExponentialDecayLengthPenalty(own.exponential_decay_length_penalty, ends, 1))
        if own.suppress_tokens is not None:
            self.after.append(SuppressTokensLogitsProcessor(own.suppress_tokens, device=device))
        if own.begin_suppress_tokens is not None:
            begin = 1 if self.first is None else 2
            self.after.append(
                SuppressTokensAtBeginLogitsProcessor(own.begin_suppress_tokens, begin, device=device)
            )
        if own.renormalize_logits:
            self.after.append(LogitNormalization())


def apply(
    rules: ModelRules, requests: Sequence[GenerationParameters], sequences: Tensor, scores: Tensor
) -> Tensor:
    """Scores [rows, vocabulary] of what may come after `sequences` [rows, length], which begin with the start token.

    `requests`: of each row. Changes `scores` where it can.
    """
    length = sequences.shape[1]
    scores = rules.before(sequences, scores)
    _forbid_repetition(requests, sequences, scores)
    early = [row for row, request in enumerate(requests) if length - 1 < request.min_new_tokens]
    if early and rules.ends:
        _set(scores, early, rules.ends, _NEVER)
    if rules.first is not None and length == 1:
        _force(scores, list(range(len(scores))), [rules.first])
    if rules.last:
        _force(
            scores,
            [row for row, request in enumerate(requests) if length == request.max_new_tokens],
            rules.last,
        )
    result: Tensor = rules.after(sequences, scores)
    return result


def _forbid_repetition(requests: Sequence[GenerationParameters], sequences: Tensor, scores: Tensor) -> None:
    """No n-gram twice: after the n - 1 newest tokens, nothing that has followed them before."""
    size = requests[0].no_repeat_ngram_size
    if not size or sequences.shape[1] < size:
        return
    grams = sequences.unfold(1, size, 1)
    newest = sequences[:, sequences.shape[1] - size + 1 :]
    rows, places = (grams[:, :, :-1] == newest[:, None]).all(-1).nonzero(as_tuple=True)
    scores[rows, grams[rows, places, -1]] = _NEVER


def _force(scores: Tensor, rows: Sequence[int], tokens: Sequence[int]) -> None:
    """Nothing but these tokens."""
    if rows:
        scores[list(rows)] = _NEVER
        _set(scores, rows, tokens, 0.0)


def _set(scores: Tensor, rows: Sequence[int], tokens: Sequence[int], value: float) -> None:
    scores[torch.tensor(rows)[:, None], torch.tensor(tokens)[None]] = value


def _list(tokens: int | Sequence[int] | None) -> list[int]:
    return [] if tokens is None else [tokens] if isinstance(tokens, int) else list(tokens)
