"""Beam search with length penalty and early stopping, as in transformers (GenerationMixin._beam_search).

Every text is searched for itself: it leaves the batch when it is done, and its result does not depend on the others.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from handlers.core.progress import report_step
from handlers.engines.seq2seq.cache import Cache
from handlers.engines.seq2seq.logits_processors import LogitsProcessors, process_logits
from handlers.engines.seq2seq.network import Network
from handlers.text.generation import GeneratedTokens, GenerationParameters

_NONE = -1e9  # the score of a place that nothing has taken yet
_BLOCK = 64


class Candidate(NamedTuple):
    """A beam with one more token; `score` is the sum of its tokens' log probabilities, in float32."""

    score: float
    beam: int
    token: int


class Complete(NamedTuple):
    score: float
    tokens: list[int]


class Search:
    """The beams of one text: those that go on, and the best that are complete."""

    def __init__(self, request: GenerationParameters, eos_token_ids: Sequence[int]) -> None:
        self.request, self.eos_token_ids = request, eos_token_ids
        beams = request.num_beams
        # At first all beams are the same: only one of them counts.
        self.scores = [0.0] + [_NONE] * (beams - 1)
        self.tokens: list[list[int]] = [[] for _ in range(beams)]
        self.beam_indices = list(range(beams))
        self._complete: list[Complete] = []
        self.done = False

    def advance(self, candidates: Sequence[Candidate]) -> None:
        """Take the best candidates, which are in the order of their scores, and set `beam_indices`, their beams."""
        beams, length = self.request.num_beams, len(self.tokens[0]) + 1
        at_end = length == self.request.max_new_tokens
        running = []
        for rank, candidate in enumerate(candidates):
            if not at_end and candidate.token not in self.eos_token_ids:
                running.append(candidate)
            elif rank < beams and candidate.score > float("-inf"):
                tokens = [*self.tokens[candidate.beam], candidate.token]
                self._complete.append(Complete(self._penalized(candidate.score, length), tokens))
        self._complete = sorted(self._complete, key=lambda each: -each.score)[:beams]
        running = running[:beams]
        self.done = at_end or len(running) < beams or self._is_settled(running[0].score, length)
        self.beam_indices = list(range(beams))
        if self.done:
            return
        self.beam_indices = [each.beam for each in running]
        self.tokens = [[*self.tokens[each.beam], each.token] for each in running]
        self.scores = [each.score for each in running]

    def result(self) -> list[int]:
        return self._complete[0].tokens if self._complete else self.tokens[0]

    def _is_settled(self, best: float, length: int) -> bool:
        """Whether no running beam is expected to become better than the worst complete one."""
        if len(self._complete) < self.request.num_beams:
            return False
        if self.request.early_stopping is True:
            return True
        optimistic = self.request.early_stopping == "never" and self.request.length_penalty > 0
        hoped = self._penalized(best, self.request.max_new_tokens if optimistic else length)
        return not hoped > self._complete[-1].score

    def _penalized(self, score: float, length: int) -> float:
        return float(np.float32(score) / np.float32(length**self.request.length_penalty))


def beam_search(
    network: Network,
    cache: Cache,
    processors: LogitsProcessors,
    requests: Sequence[GenerationParameters],
) -> GeneratedTokens:
    """New tokens of each text in `cache`; all requests have as many beams."""
    beams, device = cache.beams, network.shape.device
    # Enough that beams are left when all of them end at once.
    num_candidates = max(2, 1 + len(processors.eos_token_ids)) * beams
    searches = [Search(request, processors.eos_token_ids) for request in requests]
    running = list(searches)  # those in the cache, in its order
    sequences = torch.full((len(running) * beams, 1), processors.decoder_start_token_id, device=device)
    while running:
        report_step()
        length = sequences.shape[1]
        logits = network.step(sequences[:, -1], length - 1, cache)
        of_rows = [search.request for search in running for _ in range(beams)]
        scores = process_logits(processors, of_rows, sequences, functional.log_softmax(logits, -1))
        before = torch.tensor([search.scores for search in running], device=device)
        scores = scores.view(*before.shape, -1).add_(before[:, :, None])
        best, token_indices = blockwise_topk(scores.flatten(1), num_candidates)
        beam_indices, newest = [], []
        for index, search in enumerate(running):
            pairs = zip(best[index].tolist(), token_indices[index].tolist(), strict=True)
            search.advance([Candidate(score, *divmod(flat, scores.shape[-1])) for score, flat in pairs])
            beam_indices += [index * beams + beam for beam in search.beam_indices]
            newest += [
                tokens[-1] if tokens else processors.decoder_start_token_id for tokens in search.tokens
            ]
        sequences = _go_on(
            cache, sequences, torch.tensor(beam_indices, device=device), torch.tensor(newest, device=device)
        )
        for index in reversed(range(len(running))):
            if running[index].done:
                cache.drop(index)
                rows = sequences.view(len(running), beams, -1)
                rows[index] = rows[-1]
                sequences = rows[:-1].flatten(0, 1)
                running[index] = running[-1]
                running.pop()
    return [search.result() for search in searches]


def _go_on(cache: Cache, sequences: Tensor, beam_indices: Tensor, newest: Tensor) -> Tensor:
    """The beams' sequences with one more token. What two of them have in common lies in the cache for both."""
    chosen = sequences[beam_indices]
    apart = (chosen != sequences).any(0).nonzero()
    if len(apart):
        cache.reorder(beam_indices, int(apart[0]))
    return torch.cat([chosen, newest[:, None]], 1)


def blockwise_topk(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest of each row, in order, and where they are: [rows, count] each.

    torch.topk goes through a long row as a heap; here it sees the blocks with the largest maxima, which hold them.
    """
    length = scores.shape[1]
    if length <= _BLOCK * count:
        return torch.topk(scores, count)
    if length % _BLOCK:
        scores = functional.pad(scores, (0, -length % _BLOCK), value=float("-inf"))
    blocks = scores.view(len(scores), -1, _BLOCK)
    chosen = torch.topk(blocks.amax(-1), count)[1]
    within = blocks.gather(1, chosen[:, :, None].expand(-1, -1, _BLOCK)).flatten(1)
    best, token_indices = torch.topk(within, count)
    indices = chosen.gather(1, token_indices // _BLOCK) * _BLOCK + token_indices % _BLOCK
    return best, indices.clamp(max=length - 1)  # not in what was put on, where all that is left is as small
