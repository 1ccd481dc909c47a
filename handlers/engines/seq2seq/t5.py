"""T5 (Raffel et al. 2020, https://arxiv.org/abs/1910.10683), with the gated layers of T5 1.1 and mT5 as well."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from handlers.engines.seq2seq.cache import MAX_STEPS, Cache, Shape
from handlers.engines.seq2seq.linear import Layer, MakeLayer
from handlers.engines.seq2seq.network import (
    cached_self_attention,
    cross_attention,
    encoder_self_attention,
    unflatten,
)


class _Norm:
    """Root mean square, without mean or bias (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467)."""

    def __init__(self, module: Any) -> None:
        self._weight, self._epsilon = module.weight, module.variance_epsilon

    def __call__(self, x: Tensor) -> Tensor:
        full = x.float()
        mean = full.square().mean(-1, keepdim=True)
        normal: Tensor = self._weight * (full * torch.rsqrt(mean + self._epsilon)).to(x.dtype)
        return normal


class _Attention(NamedTuple):
    """`qkv` is the query alone where keys and values are the source's. T5 does not scale queries."""

    norm: _Norm
    qkv: Layer
    out: Layer


class _FeedForward:
    def __init__(self, module: Any, linear: MakeLayer) -> None:
        self._norm, dense = _Norm(module.layer_norm), module.DenseReluDense
        self._gated = hasattr(dense, "wi_0")
        self._activation = None
        if self._gated:
            self._in = linear(torch.cat([dense.wi_0.weight, dense.wi_1.weight]))
            self._activation = dense.act
        elif isinstance(dense.act, torch.nn.ReLU):
            self._in = linear(dense.wi.weight, activation="relu")
        else:
            self._in, self._activation = linear(dense.wi.weight), dense.act
        self._out = linear(dense.wo.weight)

    def __call__(self, x: Tensor) -> Tensor:
        inner = self._in(self._norm(x))
        if self._gated:
            gate, inner = inner.chunk(2, -1)
            inner = self._activation(gate) * inner  # type: ignore[misc]
        elif self._activation is not None:
            inner = self._activation(inner)
        return self._out.add_to(inner, x)


class T5:
    """From transformers' T5ForConditionalGeneration or MT5ForConditionalGeneration."""

    def __init__(self, model: Any, linear: MakeLayer) -> None:
        config, encoder, decoder = model.config, model.encoder, model.decoder
        self._embedding: Tensor = encoder.embed_tokens.weight
        self._decoder_embedding: Tensor = decoder.embed_tokens.weight
        size, heads, layers = config.d_kv, config.num_heads, len(decoder.block)
        self.shape = Shape(layers, heads, size, self._embedding.dtype, self._embedding.device)
        self._encoder = [
            (_within(block.layer[0], linear), _FeedForward(block.layer[-1], linear))
            for block in encoder.block
        ]
        self._decoder = [
            (
                _within(block.layer[0], linear),
                _query(block.layer[1], linear),
                _FeedForward(block.layer[-1], linear),
            )
            for block in decoder.block
        ]
        cross = [block.layer[1].EncDecAttention for block in decoder.block]
        self._source = linear(torch.cat([part.weight for each in cross for part in (each.k, each.v)]))
        self._encoder_norm, self._decoder_norm = (_Norm(part.final_layer_norm) for part in (encoder, decoder))
        self._encoder_bias, self._decoder_bias = (
            _Bias(part.block[0].layer[0].SelfAttention) for part in (encoder, decoder)
        )
        # T5 scales where the embedding is the last layer; mT5's configuration does not know of it.
        scaled = getattr(config, "scale_decoder_outputs", False)
        self._final_scale = config.d_model**-0.5 if scaled else 1.0
        self.vocabulary = len(model.lm_head.weight)
        self._head = linear(model.lm_head.weight)

    def encode(self, texts: Sequence[Tensor]) -> list[Tensor]:
        lengths = [len(text) for text in texts]
        x = self._embedding[torch.cat(list(texts))]
        bias = self._encoder_bias.between(max(lengths))
        for attention, feed_forward in self._encoder:
            qkv = unflatten(attention.qkv(attention.norm(x)), 3, *self.shape[1:3])
            x = attention.out.add_to(encoder_self_attention(qkv, lengths, bias), x)
            x = feed_forward(x)
        source = self._source(self._encoder_norm(x))
        layers, heads, size, *_ = self.shape
        return list(torch.split(unflatten(source, layers, 2, heads, size), lengths))

    def step(self, tokens: Tensor, position: int | Tensor, cache: Cache) -> Tensor:
        heads_size = self.shape[1:3]
        x = self._decoder_embedding[tokens]
        bias = self._bias(position, cache)
        for layer, (own, cross, feed_forward) in enumerate(self._decoder):
            qkv = unflatten(own.qkv(own.norm(x)), 3, *heads_size)
            x = own.out.add_to(cached_self_attention(qkv, layer, position, cache, bias), x)
            q = unflatten(cross.qkv(cross.norm(x)), *heads_size)
            x = cross.out.add_to(cross_attention(q, layer, cache), x)
            x = feed_forward(x)
        return self._head(self._decoder_norm(x) * self._final_scale).float()

    def _bias(self, position: int | Tensor, cache: Cache) -> Tensor:
        causal_mask = cache.causal_mask(position)
        if causal_mask is None:
            return self._decoder_bias.back_from(int(position))
        return self._decoder_bias.back_from_one_of(torch.as_tensor(position), causal_mask)


class _Bias:
    """Relative position bias, in buckets that widen with the distance (section 2.1 of the T5 paper)."""

    def __init__(self, module: Any) -> None:
        self._weight: Tensor = module.relative_attention_bias.weight
        self._bucket = partial(
            module._relative_position_bucket,
            bidirectional=not module.is_decoder,
            num_buckets=module.relative_attention_num_buckets,
            max_distance=module.relative_attention_max_distance,
        )
        self._back = self._of_steps(MAX_STEPS)

    def between(self, length: int) -> Tensor:
        """[1, heads, length, length]"""
        positions = torch.arange(length, device=self._weight.device)
        return self._of(positions - positions[:, None])

    def back_from(self, position: int) -> Tensor:
        """From a position to all up to it: [1, heads, 1, position + 1]."""
        back = self._back if position < MAX_STEPS else self._of_steps(position + 1)
        bias = back[..., back.shape[-1] - position - 1 :]
        return bias if bias.device.type == "cpu" else bias.contiguous()  # CUDA's kernels want it aligned

    def back_from_one_of(self, position: Tensor, causal_mask: Tensor) -> Tensor:
        """The same for a position [1] below MOST_STEPS, as wide as `causal_mask`, which is added."""
        distances = torch.arange(causal_mask.shape[-1], device=causal_mask.device) - position
        return self._back[..., (distances + MAX_STEPS - 1).clamp(max=MAX_STEPS - 1)] + causal_mask

    def _of_steps(self, count: int) -> Tensor:
        return self._of(torch.arange(1 - count, 1, device=self._weight.device)[None])

    def _of(self, distances: Tensor) -> Tensor:
        """[queries, keys] -> [1, heads, queries, keys]"""
        return functional.embedding(self._bucket(distances), self._weight).permute(2, 0, 1)[None].contiguous()


def _within(layer: Any, linear: MakeLayer) -> _Attention:
    part = layer.SelfAttention
    qkv = torch.cat([part.q.weight, part.k.weight, part.v.weight])
    return _Attention(_Norm(layer.layer_norm), linear(qkv), linear(part.o.weight))


def _query(layer: Any, linear: MakeLayer) -> _Attention:
    part = layer.EncDecAttention
    return _Attention(_Norm(layer.layer_norm), linear(part.q.weight), linear(part.o.weight))
