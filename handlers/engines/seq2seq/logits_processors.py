"""Logits processors: lengths, forced and suppressed tokens, and repetition.

Processors that depend on a request's parameters are implemented here, because the rows of a batch may belong to
different requests. They compute the same scores as those of transformers, which provides the other processors. The
order is that of transformers (GenerationMixin._get_logits_processor).
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
from handlers.engines.seq2seq.generation_types import GenerationParameters

PADDING_ID = -1
"""The padding of `input_ids`, which is not the id of a token."""

_MINUS_INFINITY = float("-inf")


class LogitsProcessors:
    """The token ids and processors of a model's generation config, which are the same for all requests.

    Attributes:
        vocab_size: The number of tokens of the output.
        decoder_start_token_id: The token that decoding starts with.
        eos_token_ids: The end tokens within the vocabulary.
        forced_bos_token_id: The first new token, if the model forces one.
        forced_eos_token_ids: The last new tokens that the model forces at `max_new_tokens`.
        pre_processors: Processors that run before those of the request.
        post_processors: Processors that run after those of the request.
    """

    def __init__(self, generation_config: GenerationConfig, vocab_size: int, device: torch.device) -> None:
        """Read a generation config.

        Raises:
            EngineUnavailable: The generation config sets an unsupported processor, or not exactly one start token.
        """
        for name, off in (("encoder_repetition_penalty", 1.0), ("encoder_no_repeat_ngram_size", 0)):
            if getattr(generation_config, name, None) not in (None, off):
                raise EngineUnavailable(
                    f"the native engine does not support {name}, which the generation config sets"
                )
        decoder_start_token_id = (
            generation_config.bos_token_id
            if generation_config.decoder_start_token_id is None
            else generation_config.decoder_start_token_id
        )
        if not isinstance(decoder_start_token_id, int):
            raise EngineUnavailable(
                f"decoder_start_token_id must be one integer, not {decoder_start_token_id!r}"
            )
        self.vocab_size, self.decoder_start_token_id = vocab_size, decoder_start_token_id
        self.eos_token_ids, self.forced_eos_token_ids = (
            [token for token in _as_list(tokens) if token < vocab_size]
            for tokens in (generation_config.eos_token_id, generation_config.forced_eos_token_id)
        )
        self.forced_bos_token_id = generation_config.forced_bos_token_id
        eos_token_ids = torch.tensor(self.eos_token_ids, device=device)
        self.pre_processors, self.post_processors = LogitsProcessorList(), LogitsProcessorList()
        if generation_config.sequence_bias is not None:
            self.pre_processors.append(SequenceBiasLogitsProcessor(generation_config.sequence_bias))
        if generation_config.repetition_penalty not in (None, 1.0):
            self.pre_processors.append(RepetitionPenaltyLogitsProcessor(generation_config.repetition_penalty))
        if generation_config.bad_words_ids is not None:
            self.pre_processors.append(
                NoBadWordsLogitsProcessor(generation_config.bad_words_ids, eos_token_ids)
            )
        if generation_config.remove_invalid_values:
            self.post_processors.append(InfNanRemoveLogitsProcessor())
        if generation_config.exponential_decay_length_penalty is not None:
            self.post_processors.append(
                ExponentialDecayLengthPenalty(
                    generation_config.exponential_decay_length_penalty, eos_token_ids, 1
                )
            )
        if generation_config.suppress_tokens is not None:
            self.post_processors.append(
                SuppressTokensLogitsProcessor(generation_config.suppress_tokens, device=device)
            )
        if generation_config.begin_suppress_tokens is not None:
            begin = 1 if self.forced_bos_token_id is None else 2
            self.post_processors.append(
                SuppressTokensAtBeginLogitsProcessor(
                    generation_config.begin_suppress_tokens, begin, device=device
                )
            )
        if generation_config.renormalize_logits:
            self.post_processors.append(LogitNormalization())


def process_logits(
    processors: LogitsProcessors,
    parameters: Sequence[GenerationParameters],
    input_ids: Tensor,
    scores: Tensor,
    lengths: Sequence[int] | None = None,
) -> Tensor:
    """Return the processed scores of the next token.

    Args:
        processors: The processors of the model.
        parameters: The parameters of each row, which may differ only in lengths.
        input_ids: The tokens so far [rows, length], which begin with the start token. Shorter rows are padded with
            PADDING_ID on the left.
        scores: The scores [rows, vocab_size]. They may be changed in place.
        lengths: The number of tokens of each row. None stands for rows without padding.
    """
    lengths = lengths or [input_ids.shape[1]] * len(parameters)
    rows = list(zip(range(len(parameters)), parameters, lengths, strict=True))
    scores = _run_processors(processors.pre_processors, input_ids, scores, lengths)
    _ban_repeated_ngrams(parameters[0].no_repeat_ngram_size, input_ids, scores)
    below_minimum = [row for row, request, length in rows if length - 1 < request.min_new_tokens]
    if below_minimum and processors.eos_token_ids:
        _fill(scores, below_minimum, processors.eos_token_ids, _MINUS_INFINITY)
    if processors.forced_bos_token_id is not None:
        at_start = [row for row, length in enumerate(lengths) if length == 1]
        _force_tokens(scores, at_start, [processors.forced_bos_token_id])
    if processors.forced_eos_token_ids:
        at_maximum = [row for row, request, length in rows if length == request.max_new_tokens]
        _force_tokens(scores, at_maximum, processors.forced_eos_token_ids)
    return _run_processors(processors.post_processors, input_ids, scores, lengths)


def _run_processors(
    processors: LogitsProcessorList, input_ids: Tensor, scores: Tensor, lengths: Sequence[int]
) -> Tensor:
    """Return the scores of transformers' processors, which require rows of equal length."""
    longest = input_ids.shape[1]
    result: Tensor
    if not processors or min(lengths) == longest:
        result = processors(input_ids, scores)
        return result
    result = torch.empty_like(scores)
    for length in set(lengths):
        rows = [row for row, row_length in enumerate(lengths) if row_length == length]
        result[rows] = processors(input_ids[rows, longest - length :], scores[rows])
    return result


def _ban_repeated_ngrams(ngram_size: int, input_ids: Tensor, scores: Tensor) -> None:
    """Exclude tokens that would repeat an n-gram of `input_ids`. An `ngram_size` of 0 disables the check."""
    if not ngram_size or input_ids.shape[1] < ngram_size:
        return
    ngrams = input_ids.unfold(1, ngram_size, 1)
    prefix = input_ids[:, input_ids.shape[1] - ngram_size + 1 :]
    is_repeated = (ngrams[:, :, :-1] == prefix[:, None]).all(-1) & (ngrams[:, :, 0] != PADDING_ID)
    rows, positions = is_repeated.nonzero(as_tuple=True)
    scores[rows, ngrams[rows, positions, -1]] = _MINUS_INFINITY


def _force_tokens(scores: Tensor, rows: Sequence[int], tokens: Sequence[int]) -> None:
    """Exclude all other tokens from the rows."""
    if rows:
        scores[list(rows)] = _MINUS_INFINITY
        _fill(scores, rows, tokens, 0.0)


def _fill(scores: Tensor, rows: Sequence[int], tokens: Sequence[int], value: float) -> None:
    scores[torch.tensor(rows)[:, None], torch.tensor(tokens)[None]] = value


def _as_list(tokens: int | Sequence[int] | None) -> list[int]:
    return [] if tokens is None else [tokens] if isinstance(tokens, int) else list(tokens)
