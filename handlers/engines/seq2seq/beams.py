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
from handlers.engines.seq2seq import rules
from handlers.engines.seq2seq.cache import Cache
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

    def __init__(self, request: GenerationParameters, ends: Sequence[int]) -> None:
        self.request, self.ends = request, ends
        beams = request.num_beams
        # At first all beams are the same: only one of them counts.
        self.scores = [0.0] + [_NONE] * (beams - 1)
        self.tokens: list[list[int]] = [[] for _ in range(beams)]
        self.origins = list(range(beams))
        self._complete: list[Complete] = []
        self.done = False

    def advance(self, candidates: Sequence[Candidate]) -> None:
        """Takes the best candidates, which come in order of their scores; `origins` are the beams they go on from."""
        beams, length = self.request.num_beams, len(self.tokens[0]) + 1
        at_end = length == self.request.max_new_tokens
        running = []
        for rank, candidate in enumerate(candidates):
            if not at_end and candidate.token not in self.ends:
                running.append(candidate)
            elif rank < beams and candidate.score > float("-inf"):
                tokens = [*self.tokens[candidate.beam], candidate.token]
                self._complete.append(Complete(self._penalized(candidate.score, length), tokens))
        self._complete = sorted(self._complete, key=lambda each: -each.score)[:beams]
        running = running[:beams]
        self.done = at_end or len(running) < beams or self._is_settled(running[0].score, length)
        self.origins = list(range(beams))
        if self.done:
            return
        self.origins = [each.beam for each in running]
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
    network: Network, cache: Cache, own: rules.ModelRules, requests: Sequence[GenerationParameters]
) -> GeneratedTokens:
    """New tokens of each text in `cache`; all requests have as many beams."""
    beams, device = cache.beams, network.shape.device
    keep = max(2, 1 + len(own.ends)) * beams  # so that enough are left when all beams end at once
    found = [Search(request, own.ends) for request in requests]
    running = list(found)  # those in the cache, in its order
    sequences = torch.full((len(running) * beams, 1), own.start, device=device)
    while running:
        report_step()
        length = sequences.shape[1]
        logits = network.step(sequences[:, -1], length - 1, cache)
        of_rows = [search.request for search in running for _ in range(beams)]
        scores = rules.apply(own, of_rows, sequences, functional.log_softmax(logits, -1))
        before = torch.tensor([search.scores for search in running], device=device)
        scores = scores.view(*before.shape, -1).add_(before[:, :, None])
        best, places = top(scores.flatten(1), keep)
        origins, newest = [], []
        for index, search in enumerate(running):
            pairs = zip(best[index].tolist(), places[index].tolist(), strict=True)
            search.advance([Candidate(score, *divmod(place, scores.shape[-1])) for score, place in pairs])
            origins += [index * beams + beam for beam in search.origins]
            newest += [tokens[-1] if tokens else own.start for tokens in search.tokens]
        sequences = _go_on(
            cache, sequences, torch.tensor(origins, device=device), torch.tensor(newest, device=device)
        )
        for index in reversed(range(len(running))):
            if running[index].done:
                cache.drop(index)
                rows = sequences.view(len(running), beams, -1)
                rows[index] = rows[-1]
                sequences = rows[:-1].flatten(0, 1)
                running[index] = running[-1]
                running.pop()
    return [search.result() for search in found]


def _go_on(cache: Cache, sequences: Tensor, origins: Tensor, newest: Tensor) -> Tensor:
    """The beams' sequences with one more token. What two of them have in common lies in the cache for both."""
    chosen = sequences[origins]
    apart = (chosen != sequences).any(0).nonzero()
    if len(apart):
        cache.reorder(origins, int(apart[0]))
    return torch.cat([chosen, newest[:, None]], 1)


def top(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
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
    best, places = torch.topk(within, count)
    found = chosen.gather(1, places // _BLOCK) * _BLOCK + places % _BLOCK
    return best, found.clamp(max=length - 1)  # not in what was put on, where all that is left is as small
