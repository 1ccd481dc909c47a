"""What T5 and BART have in common: a network in two parts, and attention over packed texts and cached steps."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from handlers.engines.seq2seq.cache import Cache, Shape

CHUNK = 1024
"""Tokens that go through the encoder together: products are at full speed, and what they need stays small."""

_SCORES = 2**20
"""Of a long text's attention at once, by heads: what fits the cache takes half the time."""


class Network(Protocol):
    shape: Shape
    vocabulary: int

    def encode(self, texts: Sequence[Tensor]) -> list[Tensor]:
        """For texts of token ids [tokens], what the decoder looks at: [tokens, layers, 2, heads, head size] each."""
        ...

    def step(self, tokens: Tensor, position: int | Tensor, cache: Cache) -> Tensor:
        """The newest token of each row [rows], at `position`, to the next one's logits: float32 [rows, vocabulary].

        A tensor [1] as position takes a `FixedCache`; nothing but tensors then says which step it is.
        """
        ...


def fill(network: Network, cache: Cache, texts: Sequence[Tensor]) -> None:
    """Encode the texts, as many at a time as are CHUNK tokens together, into the cache."""
    chunk: list[int] = []
    for index, text in enumerate(texts):
        if chunk and sum(len(texts[i]) for i in chunk) + len(text) > CHUNK:
            _fill(network, cache, texts, chunk)
            chunk = []
        chunk.append(index)
    _fill(network, cache, texts, chunk)


def _fill(network: Network, cache: Cache, texts: Sequence[Tensor], indices: Sequence[int]) -> None:
    for index, source in zip(indices, network.encode([texts[i] for i in indices]), strict=True):
        cache.put_source(index, source)


def cut(x: Tensor, *sizes: int) -> Tensor:
    """[..., n] -> [..., *sizes]"""
    return x.view(*x.shape[:-1], *sizes)


def attend_within(qkv: Tensor, lengths: Sequence[int], bias: Tensor | None = None) -> Tensor:
    """Each text to itself, without padding: [tokens of all, 3, heads, size] -> [tokens of all, heads * size].

    `bias` [1, heads, longest, longest] is added to the scores. Queries are scaled already.
    """
    results = []
    for own in torch.split(qkv, list(lengths)):
        length, heads = len(own), own.shape[2]
        at_once = heads if own.is_cuda else max(1, _SCORES // length**2)
        found = []
        for first in range(0, heads, at_once):
            some = slice(first, first + at_once)
            q, k, v = own[:, :, some].permute(1, 2, 0, 3)[:, None]
            found.append(_attend(q, k, v, None if bias is None else bias[:, some, :length, :length])[0])
        results.append(torch.cat(found).transpose(0, 1).flatten(1))
    return torch.cat(results)


def attend_back(qkv: Tensor, layer: int, position: int | Tensor, cache: Cache, bias: Tensor | None) -> Tensor:
    """Each row to its own steps up to this one: [rows, 3, heads, size] -> [rows, heads * size]."""
    k, v = cache.append(layer, position, qkv[:, 1:])
    if cache.compiled:
        return cache.compiled(qkv[:, :1], k, v, None, bias)
    return _attend(qkv[:, 0, :, None], k, v, bias).flatten(1)


def attend_source(q: Tensor, layer: int, cache: Cache) -> Tensor:
    """Each row to its text: [rows, heads, size] -> [rows, heads * size]. Beams of one text read it together."""
    k, v = cache.source(layer)
    grouped = q.view(cache.texts, cache.beams, *q.shape[1:])
    if cache.compiled:
        return cache.compiled(grouped, k, v, cache.lengths)
    return _attend(grouped.transpose(1, 2), k, v, cache.mask).transpose(1, 2).flatten(0, 1).flatten(1)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(q k^T + bias) v. torch's fused attention takes two to four times as long for it in bf16 on a CPU."""
    if q.device.type != "cpu":
        return scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
    scores = torch.matmul(q, k.transpose(2, 3))
    if bias is not None:
        scores += bias
    return torch.matmul(scores.softmax(-1), v)
