"""BART (Lewis et al. 2019, https://arxiv.org/abs/1910.13461)."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from handlers.engines.seq2seq.cache import Cache, Shape
from handlers.engines.seq2seq.linear import Layer, MakeLayer
from handlers.engines.seq2seq.network import (
    cached_self_attention,
    cross_attention,
    encoder_self_attention,
    unflatten,
)

_OFFSET = 2  # rows of the position embedding that stand for no position


class _Norm:
    """Over the sum of a layer's input and output, as in the first transformer."""

    def __init__(self, module: Any) -> None:
        self._shape, self._weight, self._bias, self._epsilon = (
            module.normalized_shape,
            module.weight,
            module.bias,
            module.eps,
        )

    def __call__(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self._shape, self._weight, self._bias, self._epsilon)


class _Attention(NamedTuple):
    """`qkv` is the query alone where keys and values are the source's."""

    qkv: Layer
    out: Layer
    norm: _Norm


class _FeedForward:
    def __init__(self, layer: Any, linear: MakeLayer) -> None:
        gelu = (
            isinstance(layer.activation_fn, torch.nn.GELU)
            or type(layer.activation_fn).__name__ == "GELUActivation"
        )
        self._activation = None if gelu else layer.activation_fn
        self._in = linear(layer.fc1.weight, layer.fc1.bias, "gelu" if gelu else "none")
        self._out = linear(layer.fc2.weight, layer.fc2.bias)
        self._norm = _Norm(layer.final_layer_norm)

    def __call__(self, x: Tensor) -> Tensor:
        inner = self._in(x)
        if self._activation is not None:
            inner = self._activation(inner)
        return self._norm(self._out.add_to(inner, x))


class Bart:
    """From transformers' BartForConditionalGeneration."""

    def __init__(self, model: Any, linear: MakeLayer) -> None:
        config, encoder, decoder = model.config, model.model.encoder, model.model.decoder
        layers, heads = len(decoder.layers), config.decoder_attention_heads
        self._embedding: Tensor = encoder.embed_tokens.weight
        self._decoder_embedding: Tensor = decoder.embed_tokens.weight
        self._scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0
        self.shape = Shape(
            layers, heads, config.d_model // heads, self._embedding.dtype, self._embedding.device
        )
        self._encoder_heads = config.encoder_attention_heads
        self._encoder = [(_within(layer, linear), _FeedForward(layer, linear)) for layer in encoder.layers]
        self._decoder = [
            (_within(layer, linear), _query(layer, linear), _FeedForward(layer, linear))
            for layer in decoder.layers
        ]
        cross = [
            part
            for layer in decoder.layers
            for part in (layer.encoder_attn.k_proj, layer.encoder_attn.v_proj)
        ]
        self._source = linear(*_joined(cross))
        self._encoder_positions, self._decoder_positions = (
            part.embed_positions.weight[_OFFSET:] for part in (encoder, decoder)
        )
        self._encoder_norm, self._decoder_norm = (
            _Norm(part.layernorm_embedding) for part in (encoder, decoder)
        )
        self.vocabulary = len(model.lm_head.weight)
        self._head = linear(model.lm_head.weight, model.final_logits_bias[0].to(self._embedding.dtype))

    def encode(self, texts: Sequence[Tensor]) -> list[Tensor]:
        lengths = [len(text) for text in texts]
        positions = torch.cat([self._encoder_positions[:length] for length in lengths])
        x = self._encoder_norm(self._embedding[torch.cat(list(texts))] * self._scale + positions)
        for attention, feed_forward in self._encoder:
            qkv = unflatten(attention.qkv(x), 3, self._encoder_heads, -1)
            x = attention.norm(attention.out.add_to(encoder_self_attention(qkv, lengths), x))
            x = feed_forward(x)
        layers, heads, size, *_ = self.shape
        return list(torch.split(unflatten(self._source(x), layers, 2, heads, size), lengths))

    def step(self, tokens: Tensor, position: int | Tensor, cache: Cache) -> Tensor:
        heads_size, causal_mask = self.shape[1:3], cache.causal_mask(position)
        x = self._decoder_norm(
            self._decoder_embedding[tokens] * self._scale + self._decoder_positions[position]
        )
        for layer, (own, cross, feed_forward) in enumerate(self._decoder):
            qkv = unflatten(own.qkv(x), 3, *heads_size)
            x = own.norm(own.out.add_to(cached_self_attention(qkv, layer, position, cache, causal_mask), x))
            q = unflatten(cross.qkv(x), *heads_size)
            x = cross.norm(cross.out.add_to(cross_attention(q, layer, cache), x))
            x = feed_forward(x)
        return self._head(x).float()


def _within(layer: Any, linear: MakeLayer) -> _Attention:
    part = _scaled(layer.self_attn)
    qkv = linear(*_joined([part.q_proj, part.k_proj, part.v_proj]))
    return _Attention(
        qkv, linear(part.out_proj.weight, part.out_proj.bias), _Norm(layer.self_attn_layer_norm)
    )


def _query(layer: Any, linear: MakeLayer) -> _Attention:
    part = _scaled(layer.encoder_attn)
    query, out = (linear(each.weight, each.bias) for each in (part.q_proj, part.out_proj))
    return _Attention(query, out, _Norm(layer.encoder_attn_layer_norm))


def _scaled(attention: Any) -> Any:
    """With the factor 1 / sqrt(head size) in the query's weights."""
    for own in (attention.q_proj.weight, attention.q_proj.bias):
        own.mul_(attention.scaling)
    return attention


def _joined(modules: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Several layers with the same input as one."""
    return torch.cat([each.weight for each in modules]), torch.cat([each.bias for each in modules])
