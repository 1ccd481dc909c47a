"""Drafts of the next tokens of a text: those that follow the same tokens in its source (prompt lookup decoding).

The method is that of transformers (`prompt_lookup_num_tokens`) and vLLM (`ngram`), with the source of an
encoder-decoder as the prompt.
"""

from collections.abc import Sequence
from itertools import takewhile

MIN_MATCH = 2
"""The smallest number of tokens that must be equal to those before a draft. Single tokens match by chance."""

_MAX_MATCH = 16
"""The largest number of tokens that are compared to find the longest match."""

_MAX_POSITIONS = 64
"""The number of positions of the same tokens that are compared, the first ones, which limits the time."""

_INITIAL_ACCEPTANCE = 0.3
_SMOOTHING = 0.2
"""The weight of the newest token in the mean acceptance of a text."""


class PromptLookup:
    """Finds drafts of the next tokens in a text's source.

    Attributes:
        acceptance: The share of the tokens found by `find_next` that were generated recently.
    """

    def __init__(self, source: Sequence[int], search_output: bool, vocab_size: int) -> None:
        """Index the source.

        Args:
            source: The token ids of the source.
            search_output: Also find tokens in the text generated so far.
            vocab_size: The number of tokens of the output. No source id that is not below it is returned.
        """
        self.acceptance = _INITIAL_ACCEPTANCE
        self._tokens, self._output = list(source), []  # type: ignore[var-annotated]
        self._search_output, self._vocab_size = search_output, vocab_size
        # n-gram of MIN_MATCH tokens -> positions after it.
        self._positions: dict[tuple[int, ...], list[int]] = {}
        for position, ngram in enumerate(zip(*(source[first:] for first in range(MIN_MATCH)), strict=False)):
            self._add_position(ngram, position + MIN_MATCH)
        # The position of the next token in the longest match, or None without a match.
        self._position: int | None = None
        self._continuation: list[int] = []

    def find_next(self, max_tokens: int) -> Sequence[int]:
        """Return the tokens after the longest match, at most `max_tokens`."""
        if self._position is None:
            return ()
        # The first token is compared even if it is not drafted, so that a text that begins to copy is noticed.
        following = self._tokens[self._position : self._position + max(max_tokens, 1)]
        self._continuation = list(takewhile(lambda token: token < self._vocab_size, following))
        return self._continuation[:max_tokens]

    def extend(self, tokens: Sequence[int]) -> None:
        """Add the generated tokens of a step: the accepted part of the draft, followed by one more token."""
        for expected, token in zip(self._continuation, tokens, strict=False):
            self.acceptance += _SMOOTHING * ((expected == token) - self.acceptance)
        self._continuation = []
        for token in tokens:
            self._add(token)

    def _add(self, token: int) -> None:
        tokens, output, position = self._tokens, self._output, self._position
        output.append(token)
        ngram = tuple(output[-MIN_MATCH:])
        if position is not None and position < len(tokens) and tokens[position] == token:
            self._position = position + 1
        else:
            self._position = max(self._positions.get(ngram, ()), key=self._match_length, default=None)
        if self._search_output:
            tokens.append(token)
            if len(ngram) == MIN_MATCH:
                self._add_position(ngram, len(tokens))

    def _match_length(self, position: int) -> int:
        """Return the number of tokens before `position` that are equal to the newest tokens."""
        tokens = reversed(self._tokens[max(position - _MAX_MATCH, 0) : position])
        pairs = zip(tokens, reversed(self._output[-_MAX_MATCH:]), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def _add_position(self, ngram: tuple[int, ...], position: int) -> None:
        positions = self._positions.setdefault(ngram, [])
        if len(positions) < _MAX_POSITIONS:
            positions.append(position)
