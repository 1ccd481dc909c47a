"""How many tokens to draft: measured times of decoding steps, and the lengths with the most tokens per second."""

import time
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import torch

from handlers.engines.seq2seq.decode_attention import DecodeAttention
from handlers.engines.seq2seq.encoder_decoder import EncoderDecoder
from handlers.engines.seq2seq.ragged_cache import RaggedCache

_COUNTS = (1, 2, 4, 8, 16)
"""The numbers of rows and of tokens that are measured."""

_TOKENS_PER_ROW = 8
_SOURCE_LENGTH = 256
_MEASUREMENT_S = 0.3
_MIN_REPETITIONS = 3

_MAX_ACCEPTANCE = 0.98
_MIN_PROBABILITY = 0.01
"""Tokens that are less likely to be accepted are not considered."""


class InterpolatedTimes:
    """The time of a decoding step by a number of tokens or rows, relative to the number 1."""

    def __init__(self, seconds: Mapping[int, float]) -> None:
        """Interpolate between measured times, by number. The smallest number must be 1."""
        counts = sorted(seconds)
        # More tokens never take less time. A measurement that says so was disturbed.
        times = list(accumulate((seconds[count] / seconds[1] for count in counts), max))
        self.measured = dict(zip(counts, times, strict=True))
        self._times = [1.0]
        for (first, first_time), (end, end_time) in pairwise(self.measured.items()):
            self._slope = (end_time - first_time) / (end - first)
            self._times += [first_time + self._slope * extra for extra in range(1, end - first + 1)]

    def __getitem__(self, number: int) -> float:
        """Return the time of a step. Beyond the largest measured number, it continues to rise as before."""
        beyond = number - len(self._times)
        return self._times[number - 1] if beyond <= 0 else self._times[-1] + self._slope * beyond


class StepTimes:
    """The time of a decoding step by its numbers of rows and tokens, relative to a step with one row and one token.

    Attributes:
        by_rows: The times with one token per row. Each row reads its own cache.
        by_tokens: The times with the tokens in few rows, which shows the time of more tokens alone.
    """

    def __init__(self, by_rows: Mapping[int, float], by_tokens: Mapping[int, float]) -> None:
        """Set the seconds of the measured steps, by number of rows and by number of tokens."""
        self.by_rows, self.by_tokens = InterpolatedTimes(by_rows), InterpolatedTimes(by_tokens)

    def estimate(self, num_rows: int, num_tokens: int) -> float:
        """Return the time of a step with `num_tokens` tokens in all: that of the rows, and of the other tokens."""
        return self.by_rows[num_rows] + self.by_tokens[num_tokens] - self.by_tokens[num_rows]


def measure_step_times(network: EncoderDecoder, decode_attention: DecodeAttention | None) -> StepTimes:
    """Measure decoding steps with different numbers of rows and tokens.

    Steps of all sizes alternate, and the shortest time of each counts, so that other load affects them alike. There
    are at least _MIN_REPETITIONS, which take seconds for a large model, and else as many as fit into _MEASUREMENT_S.
    """
    seconds = dict.fromkeys((*map(_one_token_per_row, _COUNTS), *map(_few_rows, _COUNTS)), float("inf"))
    cache = RaggedCache(network.shape, [_SOURCE_LENGTH] * max(_COUNTS), _TOKENS_PER_ROW, decode_attention)
    end, repetitions = float("inf"), 0
    while repetitions <= _MIN_REPETITIONS or time.perf_counter() < end:
        for tokens_per_row in seconds:
            cache.batch_size = len(tokens_per_row)
            tokens = torch.zeros(sum(tokens_per_row), dtype=torch.long, device=network.shape.device)
            start = time.thread_time()
            cache_position = cache.start_step([0] * cache.batch_size, tokens_per_row)
            network.decode_step(tokens, cache_position, cache).argmax(-1).tolist()
            if repetitions:  # the first one prepares kernels
                seconds[tokens_per_row] = min(seconds[tokens_per_row], time.thread_time() - start)
        repetitions += 1
        if repetitions == 1:
            end = time.perf_counter() + _MEASUREMENT_S
    return StepTimes(
        {count: seconds[_one_token_per_row(count)] for count in _COUNTS},
        {count: seconds[_few_rows(count)] for count in _COUNTS},
    )


def _one_token_per_row(num_rows: int) -> tuple[int, ...]:
    """Return the number of tokens of each row."""
    return (1,) * num_rows


def _few_rows(num_tokens: int) -> tuple[int, ...]:
    """Return the number of tokens of each row: as many as a draft can have, instead of more rows."""
    num_rows = -(-num_tokens // _TOKENS_PER_ROW)
    return (num_tokens // num_rows,) * num_rows


def choose_draft_lengths(
    acceptances: Sequence[float], max_lengths: Sequence[int], step_times: StepTimes
) -> list[int]:
    """Return the number of tokens to draft for each row of a step.

    The i-th token of a row is accepted with the probability acceptance^i. The most probable tokens are drafted, as
    many as maximize the expected number of generated tokens per second.

    Args:
        acceptances: The probability of each row that one more drafted token is accepted.
        max_lengths: The largest number for each row.
        step_times: The times of the network's steps.
    """
    num_rows, candidates = len(acceptances), []
    for row, (acceptance, max_length) in enumerate(zip(acceptances, max_lengths, strict=True)):
        probability = 1.0
        for _ in range(max_length):
            probability *= min(acceptance, _MAX_ACCEPTANCE)
            if probability < _MIN_PROBABILITY:
                break
            candidates.append((probability, row))
    candidates.sort(reverse=True)
    expected = float(num_rows)
    best_speed, best_count = expected / step_times.estimate(num_rows, num_rows), 0
    for count, (probability, _) in enumerate(candidates, 1):
        expected += probability
        speed = expected / step_times.estimate(num_rows, num_rows + count)
        if speed > best_speed:
            best_speed, best_count = speed, count
    lengths = [0] * num_rows
    for _, row in candidates[:best_count]:
        lengths[row] += 1
    return lengths
