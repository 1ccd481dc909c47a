"""A cache whose rows can be at different positions, for steps that compute several tokens of a row."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from handlers.engines.seq2seq.cache import DecoderShape, EncoderDecoderCache
from handlers.engines.seq2seq.decode_attention import DecodeAttention


class RaggedCache(EncoderDecoderCache):
    """The cache of a batch without beams, in which each row computes any number of consecutive tokens in a step.

    A step computes the tokens of all rows one after the other, without padding: [tokens]. Without compiled attention,
    torch computes attention in a grid [batch_size, width], in which shorter rows repeat their first token. The keys
    and values of a rejected token stay until a later step overwrites them. Until then, no query attends to them.
    """

    def __init__(
        self,
        shape: DecoderShape,
        source_lengths: Sequence[int],
        max_cache_len: int,
        decode_attention: DecodeAttention | None = None,
    ) -> None:
        """Allocate the cache. The arguments are those of `EncoderDecoderCache`."""
        super().__init__(shape, source_lengths, 1, max_cache_len, decode_attention)
        if decode_attention is None:
            self._self_kv.zero_()  # uninitialized memory may contain NaN, which a mask does not hide
        self._rows = self._offsets = torch.empty(0, dtype=torch.long)
        # The token of each query; None if all rows have the same number of tokens.
        self._grid: Tensor | None = None

    def start_step(self, first_positions: Sequence[int], counts: Sequence[int]) -> int | Tensor:
        """Set the tokens of the next step, and return its `cache_position` for `EncoderDecoder.decode_step`.

        Args:
            first_positions: The position of each row's first token.
            counts: The number of tokens of each row, at least 1.

        Returns:
            The common position if each row has one token at the same position, else the position of each token,
            [tokens].
        """
        self._grid, width = None, max(counts)
        self.query_offsets = self.query_lengths = None
        if width == 1 and min(first_positions) == max(first_positions):
            return first_positions[0]
        device = self._self_kv.device
        tokens = [
            (row, offset, first + offset)
            for row, (first, count) in enumerate(zip(first_positions, counts, strict=True))
            for offset in range(count)
        ]
        self._rows, self._offsets, positions = torch.tensor(tokens, device=device).unbind(1)
        lengths = [first + count for first, count in zip(first_positions, counts, strict=True)]
        self._seq_length = max(lengths)
        starts = [0, *accumulate(counts)]
        if self.decode_attention:
            self.query_offsets = torch.tensor(starts, device=device)
            self.query_lengths = torch.tensor(lengths, device=device)
        elif len(tokens) < len(counts) * width:
            grid = [
                [start + offset if offset < count else start for offset in range(width)]
                for start, count in zip(starts, counts, strict=False)
            ]
            self._grid = torch.tensor(grid, device=device)
        return positions

    def last_position(self, cache_position: int | Tensor) -> int:
        """See `EncoderDecoderCache.last_position`."""
        return cache_position if isinstance(cache_position, int) else self._seq_length - 1

    def query_positions(self, cache_position: Tensor) -> Tensor:
        """Return the position of each query, [batch_size, width]."""
        return self.group_queries(cache_position, self.batch_size)

    def causal_mask(self, cache_position: int | Tensor) -> Tensor | None:
        """Return the mask [batch_size, 1, width, steps], or None if attention needs none."""
        if isinstance(cache_position, int) or self.decode_attention:
            return None
        steps = torch.arange(self._seq_length, device=cache_position.device)
        is_future = steps > self.query_positions(cache_position)[:, None, :, None]
        mask = torch.zeros(is_future.shape, dtype=self._self_kv.dtype, device=is_future.device)
        return mask.masked_fill_(is_future, float("-inf"))

    def update(self, layer_idx: int, cache_position: int | Tensor, keys_values: Tensor) -> Tensor:
        """Store the keys and values of a step, [tokens, 2, num_heads, head_dim].

        Returns:
            Keys and values of all steps up to the last one of the longest row:
            [2, batch_size, num_heads, steps, head_dim].
        """
        if isinstance(cache_position, int):
            return super().update(layer_idx, cache_position, keys_values)
        self_kv = self._self_kv[layer_idx, :, : self.batch_size]
        self_kv[:, self._rows, :, cache_position] = keys_values.to(self_kv.dtype)
        return self_kv[:, :, :, : self._seq_length]

    def group_queries(self, queries: Tensor, num_groups: int) -> Tensor:
        """See `EncoderDecoderCache.group_queries`. Shorter rows repeat their first query."""
        return super().group_queries(queries, num_groups) if self._grid is None else queries[self._grid]

    def ungroup_queries(self, results: Tensor) -> Tensor:
        """See `EncoderDecoderCache.ungroup_queries`."""
        if self._grid is None:
            return super().ungroup_queries(results)
        return results[self._rows, self._offsets]
