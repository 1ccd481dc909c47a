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

        A tensor [1] as position takes a `StaticCache`; nothing but tensors then says which step it is.
        """
        ...


def prefill(network: Network, cache: Cache, texts: Sequence[Tensor]) -> None:
    """Encode the texts, as many at a time as are CHUNK tokens together, into the cache."""
    chunk: list[int] = []
    for index, text in enumerate(texts):
        if chunk and sum(len(texts[i]) for i in chunk) + len(text) > CHUNK:
            _prefill_chunk(network, cache, texts, chunk)
            chunk = []
        chunk.append(index)
    _prefill_chunk(network, cache, texts, chunk)


def _prefill_chunk(network: Network, cache: Cache, texts: Sequence[Tensor], indices: Sequence[int]) -> None:
    for index, source in zip(indices, network.encode([texts[i] for i in indices]), strict=True):
        cache.put_cross_kv(index, source)


def unflatten(x: Tensor, *sizes: int) -> Tensor:
    """[..., n] -> [..., *sizes]"""
    return x.view(*x.shape[:-1], *sizes)


def encoder_self_attention(qkv: Tensor, lengths: Sequence[int], bias: Tensor | None = None) -> Tensor:
    """Each text to itself, without padding: [tokens of all, 3, heads, size] -> [tokens of all, heads * size].

    `bias` [1, heads, longest, longest] is added to the scores. Queries are scaled already.
    """
    results = []
    for text_qkv in torch.split(qkv, list(lengths)):
        length, heads = len(text_qkv), text_qkv.shape[2]
        heads_per_chunk = heads if text_qkv.is_cuda else max(1, _SCORES // length**2)
        outputs = []
        for first in range(0, heads, heads_per_chunk):
            head_slice = slice(first, first + heads_per_chunk)
            q, k, v = text_qkv[:, :, head_slice].permute(1, 2, 0, 3)[:, None]
            outputs.append(
                _attention(q, k, v, None if bias is None else bias[:, head_slice, :length, :length])[0]
            )
        results.append(torch.cat(outputs).transpose(0, 1).flatten(1))
    return torch.cat(results)


def cached_self_attention(
    qkv: Tensor, layer: int, position: int | Tensor, cache: Cache, bias: Tensor | None
) -> Tensor:
    """Each row to its own steps up to this one: [rows, 3, heads, size] -> [rows, heads * size]."""
    k, v = cache.append(layer, position, qkv[:, 1:])
    if cache.compiled:
        return cache.compiled(qkv[:, :1], k, v, None, bias)
    return _attention(qkv[:, 0, :, None], k, v, bias).flatten(1)


def cross_attention(q: Tensor, layer: int, cache: Cache) -> Tensor:
    """Each row to its text: [rows, heads, size] -> [rows, heads * size]. Beams of one text read it together."""
    k, v = cache.cross_kv(layer)
    grouped = q.view(cache.texts, cache.beams, *q.shape[1:])
    if cache.compiled:
        return cache.compiled(grouped, k, v, cache.lengths)
    return _attention(grouped.transpose(1, 2), k, v, cache.mask).transpose(1, 2).flatten(0, 1).flatten(1)


def _attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(q k^T + bias) v. torch's fused attention takes two to four times as long for it in bf16 on a CPU."""
    if q.device.type != "cpu":
        return scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
    scores = torch.matmul(q, k.transpose(2, 3))
    if bias is not None:
        scores += bias
    return torch.matmul(scores.softmax(-1), v)
