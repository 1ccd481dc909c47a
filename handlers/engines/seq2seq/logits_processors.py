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

_MINUS_INFINITY = float("-inf")


class LogitsProcessors:
    """What the model's own generation config asks for, alike for every request."""

    def __init__(self, generation_config: GenerationConfig, vocabulary: int, device: torch.device) -> None:
        """Raises EngineUnavailable for what looks at the source's tokens, and for a start that is not one token."""
        for name, off in (("encoder_repetition_penalty", 1.0), ("encoder_no_repeat_ngram_size", 0)):
            if getattr(generation_config, name, None) not in (None, off):
                raise EngineUnavailable(f"the model's generation config sets {name}")
        decoder_start_token_id = (
            generation_config.bos_token_id
            if generation_config.decoder_start_token_id is None
            else generation_config.decoder_start_token_id
        )
        if not isinstance(decoder_start_token_id, int):
            raise EngineUnavailable(f"the model's decoder starts with {decoder_start_token_id}")
        self.decoder_start_token_id = decoder_start_token_id
        self.eos_token_ids, self.forced_eos_token_ids = (
            [token for token in _list(tokens) if token < vocabulary]
            for tokens in (generation_config.eos_token_id, generation_config.forced_eos_token_id)
        )
        self.forced_bos_token_id = generation_config.forced_bos_token_id
        eos_token_ids = torch.tensor(self.eos_token_ids, device=device)
        self.before, self.after = LogitsProcessorList(), LogitsProcessorList()
        if generation_config.sequence_bias is not None:
            self.before.append(SequenceBiasLogitsProcessor(generation_config.sequence_bias))
        if generation_config.repetition_penalty not in (None, 1.0):
            self.before.append(RepetitionPenaltyLogitsProcessor(generation_config.repetition_penalty))
        if generation_config.bad_words_ids is not None:
            self.before.append(NoBadWordsLogitsProcessor(generation_config.bad_words_ids, eos_token_ids))
        if generation_config.remove_invalid_values:
            self.after.append(InfNanRemoveLogitsProcessor())
        if generation_config.exponential_decay_length_penalty is not None:
            self.after.append(
                ExponentialDecayLengthPenalty(
                    generation_config.exponential_decay_length_penalty, eos_token_ids, 1
                )
            )
        if generation_config.suppress_tokens is not None:
            self.after.append(SuppressTokensLogitsProcessor(generation_config.suppress_tokens, device=device))
        if generation_config.begin_suppress_tokens is not None:
            begin = 1 if self.forced_bos_token_id is None else 2
            self.after.append(
                SuppressTokensAtBeginLogitsProcessor(
                    generation_config.begin_suppress_tokens, begin, device=device
                )
            )
        if generation_config.renormalize_logits:
            self.after.append(LogitNormalization())


def process_logits(
    processors: LogitsProcessors, requests: Sequence[GenerationParameters], sequences: Tensor, scores: Tensor
) -> Tensor:
    """Scores [rows, vocabulary] of what may come after `sequences` [rows, length], which begin with the start token.

    `requests`: of each row. Changes `scores` where it can.
    """
    length = sequences.shape[1]
    scores = processors.before(sequences, scores)
    _forbid_repetition(requests, sequences, scores)
    early = [row for row, request in enumerate(requests) if length - 1 < request.min_new_tokens]
    if early and processors.eos_token_ids:
        _set(scores, early, processors.eos_token_ids, _MINUS_INFINITY)
    if processors.forced_bos_token_id is not None and length == 1:
        _force(scores, list(range(len(scores))), [processors.forced_bos_token_id])
    if processors.forced_eos_token_ids:
        _force(
            scores,
            [row for row, request in enumerate(requests) if length == request.max_new_tokens],
            processors.forced_eos_token_ids,
        )
    result: Tensor = processors.after(sequences, scores)
    return result


def _forbid_repetition(requests: Sequence[GenerationParameters], sequences: Tensor, scores: Tensor) -> None:
    """No n-gram twice: after the n - 1 newest tokens, nothing that has followed them before."""
    size = requests[0].no_repeat_ngram_size
    if not size or sequences.shape[1] < size:
        return
    grams = sequences.unfold(1, size, 1)
    newest = sequences[:, sequences.shape[1] - size + 1 :]
    rows, positions = (grams[:, :, :-1] == newest[:, None]).all(-1).nonzero(as_tuple=True)
    scores[rows, grams[rows, positions, -1]] = _MINUS_INFINITY


def _force(scores: Tensor, rows: Sequence[int], tokens: Sequence[int]) -> None:
    """Nothing but these tokens."""
    if rows:
        scores[list(rows)] = _MINUS_INFINITY
        _set(scores, rows, tokens, 0.0)


def _set(scores: Tensor, rows: Sequence[int], tokens: Sequence[int], value: float) -> None:
    scores[torch.tensor(rows)[:, None], torch.tensor(tokens)[None]] = value


def _list(tokens: int | Sequence[int] | None) -> list[int]:
    return [] if tokens is None else [tokens] if isinstance(tokens, int) else list(tokens)
