"""Beam search with length penalty and early stopping, as in transformers (GenerationMixin._beam_search).

The search of each text is independent: the text leaves the batch when it is finished, and its result does not depend
on the other texts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from handlers.core.step_reporting import report_step
from handlers.engines.seq2seq.cache import EncoderDecoderCache
from handlers.engines.seq2seq.encoder_decoder import EncoderDecoder
from handlers.engines.seq2seq.generation_types import GeneratedTokens, GenerationParameters
from handlers.engines.seq2seq.logits_processors import LogitsProcessors, process_logits

_UNUSED_BEAM_SCORE = -1e9
_TOPK_BLOCK_SIZE = 64


class Candidate(NamedTuple):
    """A beam with one more token. `score` is the sum of the log probabilities of its tokens, in float32."""

    score: float
    beam: int
    token: int


class Hypothesis(NamedTuple):
    """A finished sequence with its score, which includes the length penalty."""

    score: float
    tokens: list[int]


class BeamSearchState:
    """The beam search of one text: its running beams and its best finished hypotheses.

    Attributes:
        params: The generation parameters of the text.
        scores: The score of each running beam.
        tokens: The new tokens of each running beam.
        beam_indices: The previous beam that each running beam continues, set by `update`.
        is_done: Whether the search of this text is finished.
    """

    def __init__(self, params: GenerationParameters, eos_token_ids: Sequence[int]) -> None:
        self.params, self._eos_token_ids = params, eos_token_ids
        num_beams = params.num_beams
        # All beams are equal at the start, so all but the first start with a very low score.
        self.scores = [0.0] + [_UNUSED_BEAM_SCORE] * (num_beams - 1)
        self.tokens: list[list[int]] = [[] for _ in range(num_beams)]
        self.beam_indices = list(range(num_beams))
        self.is_done = False
        self._finished_hypotheses: list[Hypothesis] = []

    def update(self, candidates: Sequence[Candidate]) -> None:
        """Continue the beams with the best candidates, which must be sorted by descending score."""
        num_beams, length = self.params.num_beams, len(self.tokens[0]) + 1
        is_last_step = length == self.params.max_new_tokens
        running_beams = []
        for rank, candidate in enumerate(candidates):
            if not is_last_step and candidate.token not in self._eos_token_ids:
                running_beams.append(candidate)
            elif rank < num_beams and candidate.score > float("-inf"):
                tokens = [*self.tokens[candidate.beam], candidate.token]
                score = self._apply_length_penalty(candidate.score, length)
                self._finished_hypotheses.append(Hypothesis(score, tokens))
        self._finished_hypotheses.sort(key=lambda hypothesis: -hypothesis.score)
        del self._finished_hypotheses[num_beams:]
        running_beams = running_beams[:num_beams]
        self.is_done = (
            is_last_step
            or len(running_beams) < num_beams
            or self._check_early_stop(running_beams[0].score, length)
        )
        self.beam_indices = list(range(num_beams))
        if self.is_done:
            return
        self.beam_indices = [candidate.beam for candidate in running_beams]
        self.tokens = [[*self.tokens[candidate.beam], candidate.token] for candidate in running_beams]
        self.scores = [candidate.score for candidate in running_beams]

    def best_hypothesis(self) -> list[int]:
        """Return the tokens of the finished hypothesis with the highest score, or of the best running beam."""
        return self._finished_hypotheses[0].tokens if self._finished_hypotheses else self.tokens[0]

    def _check_early_stop(self, best_score: float, length: int) -> bool:
        """Return whether no running beam is expected to exceed the worst finished hypothesis."""
        if len(self._finished_hypotheses) < self.params.num_beams:
            return False
        if self.params.early_stopping is True:
            return True
        is_optimistic = self.params.early_stopping == "never" and self.params.length_penalty > 0
        final_length = self.params.max_new_tokens if is_optimistic else length
        best_possible_score = self._apply_length_penalty(best_score, final_length)
        return not best_possible_score > self._finished_hypotheses[-1].score

    def _apply_length_penalty(self, score: float, length: int) -> float:
        return float(np.float32(score) / np.float32(length**self.params.length_penalty))


def run_beam_search(
    network: EncoderDecoder,
    cache: EncoderDecoderCache,
    processors: LogitsProcessors,
    parameters: Sequence[GenerationParameters],
) -> GeneratedTokens:
    """Return the new tokens of each text in `cache`.

    Args:
        network: The network that computes the decoding steps.
        cache: The cache with the encoded texts. It is empty afterwards.
        processors: The logits processors of the model.
        parameters: The parameters of each text, with the same number of beams.
    """
    num_beams, device = cache.num_beams, network.shape.device
    # Enough candidates for all beams to continue even if each of them can end at once.
    num_candidates = max(2, 1 + len(processors.eos_token_ids)) * num_beams
    states = [BeamSearchState(params, processors.eos_token_ids) for params in parameters]
    running_states = list(states)  # in the order of the cache
    sequences = torch.full(
        (len(running_states) * num_beams, 1), processors.decoder_start_token_id, device=device
    )
    while running_states:
        report_step()
        length = sequences.shape[1]
        logits = network.decode_step(sequences[:, -1], length - 1, cache)
        row_parameters = [state.params for state in running_states for _ in range(num_beams)]
        scores = process_logits(processors, row_parameters, sequences, functional.log_softmax(logits, -1))
        beam_scores = torch.tensor([state.scores for state in running_states], device=device)
        scores = scores.view(*beam_scores.shape, -1).add_(beam_scores[:, :, None])
        top_scores, top_indices = blockwise_topk(scores.flatten(1), num_candidates)
        # One copy from the device for all texts. float64 holds float32 scores and the indices exactly.
        candidates = torch.stack([top_scores.double(), top_indices.double()], -1).tolist()
        beam_indices, next_tokens = [], []
        for index, state in enumerate(running_states):
            state.update(
                [Candidate(score, *divmod(int(flat), scores.shape[-1])) for score, flat in candidates[index]]
            )
            beam_indices += [index * num_beams + beam for beam in state.beam_indices]
            next_tokens += [
                tokens[-1] if tokens else processors.decoder_start_token_id for tokens in state.tokens
            ]
        sequences = _append_tokens(
            cache,
            sequences,
            torch.tensor(beam_indices, device=device),
            torch.tensor(next_tokens, device=device),
        )
        for index in reversed(range(len(running_states))):
            if running_states[index].is_done:
                cache.remove_sequence(index)
                rows = sequences.view(len(running_states), num_beams, -1)
                rows[index] = rows[-1]
                sequences = rows[:-1].flatten(0, 1)
                running_states[index] = running_states[-1]
                running_states.pop()
    return [state.best_hypothesis() for state in states]


def _append_tokens(
    cache: EncoderDecoderCache, sequences: Tensor, beam_indices: Tensor, next_tokens: Tensor
) -> Tensor:
    """Return the sequences of the continued beams with one more token, and reorder the cache accordingly.

    The cache is only reordered from the first position at which a row changes.
    """
    continued_sequences = sequences[beam_indices]
    changed_positions = (continued_sequences != sequences).any(0).nonzero()
    if len(changed_positions):
        cache.reorder_cache(beam_indices, int(changed_positions[0]))
    return torch.cat([continued_sequences, next_tokens[:, None]], 1)


def blockwise_topk(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest values of each row in descending order, and their indices: [rows, count] each.

    For a long row this is faster than torch.topk, which processes it as a heap: only the blocks with the largest
    maxima are searched, and these contain the largest values.
    """
    length = scores.shape[1]
    if length <= _TOPK_BLOCK_SIZE * count:
        return torch.topk(scores, count)
    if length % _TOPK_BLOCK_SIZE:
        scores = functional.pad(scores, (0, -length % _TOPK_BLOCK_SIZE), value=float("-inf"))
    blocks = scores.view(len(scores), -1, _TOPK_BLOCK_SIZE)
    top_blocks = torch.topk(blocks.amax(-1), count)[1]
    block_scores = blocks.gather(1, top_blocks[:, :, None].expand(-1, -1, _TOPK_BLOCK_SIZE)).flatten(1)
    top_scores, positions = torch.topk(block_scores, count)
    indices = (
        top_blocks.gather(1, positions // _TOPK_BLOCK_SIZE) * _TOPK_BLOCK_SIZE + positions % _TOPK_BLOCK_SIZE
    )
    # The clamp excludes the padding, which is only selected if all remaining scores are also minus infinity.
    return top_scores, indices.clamp(max=length - 1)
