"""The keys and values of a batch: allocated once, filled at each decoding step, shrunk when a text is finished."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from handlers.engines.seq2seq.decode_attention import DecodeAttention

MAX_DECODE_STEPS = 1024
"""The largest number of steps for which T5's position bias is precomputed and CUDA graphs are captured."""


class DecoderShape(NamedTuple):
    """The dimensions of a decoder, the type of its keys and values, and its device."""

    num_layers: int
    num_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device


class EncoderDecoderCache:
    """The keys and values of a batch. The `num_beams` rows of a sequence share the cross-attention of its source.

    Attributes:
        batch_size: The number of sequences that are not finished.
        num_beams: The number of beams of each sequence.
        source_lengths: The number of tokens of each source, [batch_size] on the CPU.
        decode_attention: The compiled attention, or None if torch computes it.

        query_offsets: The first query of each sequence, followed by the number of queries, [batch_size + 1]. None if
            all sequences have `num_beams` queries.
        query_lengths: The number of steps that the last query of each sequence attends to, [batch_size]. None if it
            attends to all.

    Shapes:
        self-attention: [num_layers, 2 (keys, values), batch_size * num_beams, num_heads, max_cache_len, head_dim].
        cross-attention: [num_layers, 2 (keys, values), batch_size, num_heads, max_source_length, head_dim]. If
            `decode_attention.int8_sources`, it is int8, with a scale for each key and value.
    """

    query_offsets: Tensor | None = None
    query_lengths: Tensor | None = None
    _cross_kv_scales: Tensor | None = None

    def __init__(
        self,
        shape: DecoderShape,
        source_lengths: Sequence[int],
        num_beams: int,
        max_cache_len: int,
        decode_attention: DecodeAttention | None = None,
    ) -> None:
        """Allocate the cache.

        Args:
            shape: The dimensions of the decoder.
            source_lengths: The number of tokens of each source.
            num_beams: The number of beams of each sequence.
            max_cache_len: The largest number of new tokens.
            decode_attention: Computes attention over this cache instead of torch.
        """
        num_layers, num_heads, head_dim, dtype, device = shape
        self.num_beams, self.batch_size, self.decode_attention = (
            num_beams,
            len(source_lengths),
            decode_attention,
        )
        self._seq_length, max_source_length = 0, max(source_lengths)
        self._self_kv = torch.empty(
            *(num_layers, 2, self.batch_beam_size, num_heads, max_cache_len, head_dim),
            dtype=dtype,
            device=device,
        )
        cross_shape = (num_layers, 2, self.batch_size, num_heads, max_source_length)
        if decode_attention and decode_attention.int8_sources:
            self._cross_kv = torch.zeros(*cross_shape, head_dim, dtype=torch.int8)
            self._cross_kv_scales = torch.zeros(cross_shape)
        else:
            self._cross_kv = torch.zeros(*cross_shape, head_dim, dtype=dtype, device=device)
        self.source_lengths = torch.tensor(source_lengths)
        self._encoder_attention_mask: Tensor | None = None
        if min(source_lengths) < max_source_length:
            mask = padding_mask(self.source_lengths, max_source_length, dtype)
            self._encoder_attention_mask = mask.to(device)

    @property
    def batch_beam_size(self) -> int:
        """The number of rows of a step: batch_size * num_beams."""
        return self.batch_size * self.num_beams

    @property
    def encoder_attention_mask(self) -> Tensor | None:
        """The mask that is added to the scores of cross-attention, or None if no source is padded.

        Its shape is [batch_size, 1, 1, max_source_length].
        """
        mask = self._encoder_attention_mask
        return None if mask is None else mask[: self.batch_size]

    def set_cross_kv(self, index: int, keys_values: Tensor) -> None:
        """Store the cross-attention keys and values of a sequence: [tokens, num_layers, 2, num_heads, head_dim]."""
        if self.decode_attention and self._cross_kv_scales is not None:
            keys_values, scales = self.decode_attention.quantize(keys_values)
            self._cross_kv_scales[:, :, index, :, : len(scales)] = scales.permute(1, 2, 3, 0)
        self._cross_kv[:, :, index, :, : len(keys_values)] = keys_values.permute(1, 2, 3, 0, 4)

    def cross_kv(self, layer_idx: int) -> Tensor:
        """Return the cross-attention keys and values: [2, batch_size, num_heads, max_source_length, head_dim]."""
        return self._cross_kv[layer_idx, :, : self.batch_size]

    def cross_kv_scales(self, layer_idx: int) -> Tensor | None:
        """Return the scales of int8 keys and values, [2, batch_size, num_heads, max_source_length], or None."""
        scales = self._cross_kv_scales
        return None if scales is None else scales[layer_idx, :, : self.batch_size]

    def causal_mask(self, cache_position: int | Tensor) -> Tensor | None:  # noqa: ARG002
        """Return the mask to add to the scores of self-attention, or None because `update` returns no later steps."""
        return None

    def update(self, layer_idx: int, cache_position: int | Tensor, keys_values: Tensor) -> Tensor:
        """Store the keys and values of a step: [batch_beam_size, 2, num_heads, head_dim].

        Returns:
            Keys and values of all steps up to this one:
            [2, batch_beam_size, num_heads, cache_position + 1, head_dim].
        """
        cache_position = int(cache_position)
        self._seq_length = cache_position + 1
        self_kv = self._self_kv[layer_idx, :, : self.batch_beam_size]
        self_kv[:, :, :, cache_position] = keys_values.transpose(0, 1)
        return self_kv[:, :, :, : cache_position + 1]

    def last_position(self, cache_position: int | Tensor) -> int:
        """Return the last position of a step."""
        return int(cache_position)

    def start_compiled_step(self, cache_position: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the keys and values of self-attention, those of cross-attention, and the scales of the latter.

        The caller adds the step to self-attention. The shapes are those of `__init__`'s batch, of which the first
        `batch_beam_size` rows and `batch_size` texts are used. The compiled code checks no bounds, so the memory must
        be contiguous and have space for the step.
        """
        assert cache_position < self._self_kv.shape[4], (cache_position, self._self_kv.shape)
        assert self._self_kv.is_contiguous()
        assert self._cross_kv.is_contiguous()
        self._seq_length = cache_position + 1
        return self._self_kv, self._cross_kv, self._cross_kv_scales

    def query_positions(self, cache_position: Tensor) -> Tensor:
        """Return the position of each query that all rows have in common, [1, 1]."""
        return cache_position.view(1, -1)

    def group_queries(self, queries: Tensor, num_groups: int) -> Tensor:
        """Return the queries that attend to the same keys in groups: [rows, ...] -> [num_groups, queries, ...]."""
        return queries.view(num_groups, -1, *queries.shape[1:])

    def ungroup_queries(self, results: Tensor) -> Tensor:
        """Return the rows of `group_queries`: [num_groups, queries, ...] -> [rows, ...]."""
        return results.flatten(0, 1)

    def reorder_cache(self, beam_indices: Tensor, first_position: int) -> None:
        """Replace the steps of row i from `first_position` on with those of row `beam_indices[i]`.

        The two rows must be equal before `first_position`.
        """
        for layer_kv in self._self_kv[:, :, : self.batch_beam_size, :, first_position : self._seq_length]:
            layer_kv.copy_(layer_kv[:, beam_indices])

    def remove_sequence(self, index: int) -> None:
        """Remove a finished sequence. The last sequence takes its index."""
        last = self.batch_size - 1
        if index != last:
            target, source = (
                slice(sequence * self.num_beams, (sequence + 1) * self.num_beams)
                for sequence in (index, last)
            )
            self_kv = self._self_kv[:, :, :, :, : self._seq_length]
            self_kv[:, :, target] = self_kv[:, :, source]
            self._cross_kv[:, :, index] = self._cross_kv[:, :, last]
            if self._cross_kv_scales is not None:
                self._cross_kv_scales[:, :, index] = self._cross_kv_scales[:, :, last]
            self.source_lengths[index] = self.source_lengths[last]
            if self._encoder_attention_mask is not None:
                self._encoder_attention_mask[index] = self._encoder_attention_mask[last]
        self.batch_size = last


def padding_mask(lengths: Tensor, max_length: int, dtype: torch.dtype) -> Tensor:
    """Return a mask [batch_size, 1, 1, max_length]: 0 for the tokens of each sequence, minus infinity for padding."""
    is_padding = torch.arange(max_length) >= lengths[:, None]
    return torch.zeros(is_padding.shape, dtype=dtype).masked_fill_(is_padding, float("-inf"))[:, None, None]
