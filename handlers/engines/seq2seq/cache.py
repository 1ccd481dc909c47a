"""Keys and values of one batch: allocated once, filled step by step, and given up text by text."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from handlers.engines.seq2seq.step_attention import StepAttention

MAX_STEPS = 1024
"""Steps for which T5's position bias is at hand, and the most that are recorded."""


class Shape(NamedTuple):
    """Of a decoder, with the type and place of what it computes."""

    layers: int
    heads: int
    head_size: int
    dtype: torch.dtype
    device: torch.device


class Cache:
    """What attention looks back at: `beams` rows for each text, which share the keys and values of their source.

    self_kv: [layers, 2 (keys, values), rows, heads, capacity, head size], filled up to the current step.
    cross_kv: [layers, 2, texts, heads, longest source, head size], and for padding a mask [texts, 1, 1, longest].
    lengths: of the sources, [texts] on the CPU.
    """

    def __init__(
        self,
        shape: Shape,
        lengths: Sequence[int],
        beams: int,
        capacity: int,
        compiled: StepAttention | None = None,
    ) -> None:
        """`lengths` of the sources in tokens, `capacity` in new tokens; `compiled` attends to it in torch's place."""
        layers, heads, size, dtype, device = shape
        self.beams, self.texts, longest, self.compiled = beams, len(lengths), max(lengths), compiled
        self._filled = 0
        rows = self.texts * beams
        self._self_kv = torch.empty(layers, 2, rows, heads, capacity, size, dtype=dtype, device=device)
        self._cross_kv = torch.zeros(layers, 2, self.texts, heads, longest, size, dtype=dtype, device=device)
        self.lengths = torch.tensor(lengths)
        self._mask: Tensor | None = None
        if min(lengths) < longest:
            self._mask = mask_beyond(self.lengths, longest, dtype).to(device)

    @property
    def rows(self) -> int:
        return self.texts * self.beams

    @property
    def mask(self) -> Tensor | None:
        """Added to the scores over the source; None where no text is padded."""
        return None if self._mask is None else self._mask[: self.texts]

    def put_cross_kv(self, text: int, keys_values: Tensor) -> None:
        """A text's [tokens, layers, 2, heads, head size]."""
        self._cross_kv[:, :, text, :, : len(keys_values)] = keys_values.permute(1, 2, 3, 0, 4)

    def cross_kv(self, layer: int) -> Tensor:
        """[2, texts, heads, longest source, head size]"""
        return self._cross_kv[layer, :, : self.texts]

    def causal_mask(self, position: int | Tensor) -> Tensor | None:  # noqa: ARG002
        """Added to the scores over what `append` gives; None where all of it counts."""
        return None

    def append(self, layer: int, position: int | Tensor, keys_values: Tensor) -> Tensor:
        """Put in a step's [rows, 2, heads, head size]; all up to it: [2, rows, heads, position + 1, head size]."""
        position = int(position)
        self._filled = position + 1
        self_kv = self._self_kv[layer, :, : self.rows]
        self_kv[:, :, :, position] = keys_values.transpose(0, 1)
        return self_kv[:, :, :, : position + 1]

    def reorder(self, rows: Tensor, begin: int) -> None:
        """Row i goes on from what was row `rows[i]`; before `begin` the two are equal."""
        for layer in self._self_kv[:, :, : self.rows, :, begin : self._filled]:
            layer.copy_(layer[:, rows])

    def drop(self, text: int) -> None:
        """Give up one text; the last one takes its place."""
        last = self.texts - 1
        if text != last:
            here, there = (slice(index * self.beams, (index + 1) * self.beams) for index in (text, last))
            self_kv = self._self_kv[:, :, :, :, : self._filled]
            self_kv[:, :, here] = self_kv[:, :, there]
            self._cross_kv[:, :, text] = self._cross_kv[:, :, last]
            self.lengths[text] = self.lengths[last]
            if self._mask is not None:
                self._mask[text] = self._mask[last]
        self.texts = last


def mask_beyond(lengths: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """[texts, 1, 1, width]: 0 for as many as a text's length, minus infinity after them."""
    beyond = torch.arange(width) >= lengths[:, None]
    return torch.zeros(beyond.shape, dtype=dtype).masked_fill_(beyond, float("-inf"))[:, None, None]
