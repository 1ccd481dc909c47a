"""BART (Lewis et al. 2019, https://arxiv.org/abs/1910.13461) and architectures that differ from it in details."""

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from handlers.engines.base import EngineUnavailable
from handlers.engines.seq2seq.attention import (
    cached_self_attention,
    cross_attention,
    encoder_self_attention,
    unflatten,
)
from handlers.engines.seq2seq.cache import DecoderShape, EncoderDecoderCache
from handlers.engines.seq2seq.decoder_layers import Block, DecoderLayers, NormWeights
from handlers.engines.seq2seq.linear import Activation, LinearFactory, LinearLayer

_Norm = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class BartVariant:
    """The details in which architectures that derive from BART differ.

    The definitions are those of the model's module in transformers.

    Attributes:
        pre_norm: Whether layer normalization is applied to the input of each block (pre-norm) and to the output of
            encoder and decoder. Otherwise it is applied to the sum of a block's input and output (post-norm).
        embedding_norm: Whether layer normalization is applied to the embeddings.
        position_offset: The row of the position embedding for the first position.
    """

    pre_norm: bool
    embedding_norm: bool
    position_offset: int


_LIKE_BART = BartVariant(pre_norm=False, embedding_norm=True, position_offset=2)

BART_VARIANTS: Mapping[str, BartVariant] = {
    "bart": _LIKE_BART,
    "marian": BartVariant(pre_norm=False, embedding_norm=False, position_offset=0),
    "mbart": BartVariant(pre_norm=True, embedding_norm=True, position_offset=2),
    "mvp": _LIKE_BART,
    "pegasus": BartVariant(pre_norm=True, embedding_norm=False, position_offset=0),
    "plbart": _LIKE_BART,
}
"""The supported model types. Learned and sinusoidal positions are tables that transformers creates."""


class _LayerNorm:
    def __init__(self, module: Any) -> None:
        self._shape, self._epsilon = module.normalized_shape, module.eps
        self._weight, self._bias = module.weight, module.bias
        self.weights = NormWeights(self._weight, self._bias, self._epsilon)

    def __call__(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self._shape, self._weight, self._bias, self._epsilon)


class _Attention(NamedTuple):
    """The layers of an attention block. For cross-attention `qkv` computes the query only."""

    pre_norm: _Norm
    qkv: LinearLayer
    out: LinearLayer
    post_norm: _Norm


class _FeedForward:
    def __init__(self, layer: Any, variant: BartVariant, linear: LinearFactory) -> None:
        self._pre_norm, self._post_norm = _block_norms(layer.final_layer_norm, variant)
        fused = _fused_activation(layer.activation_fn)
        self._activation = layer.activation_fn if fused == "none" else None
        self._in = linear(layer.fc1.weight, layer.fc1.bias, fused)
        self._out = linear(layer.fc2.weight, layer.fc2.bias)

    @property
    def block(self) -> Block:
        """The weights.

        Raises:
            EngineUnavailable: The activation function is not part of the first linear layer.
        """
        if self._activation is not None:
            raise EngineUnavailable("the activation function is not compiled")
        return Block(_norm_weights(self._pre_norm, self._post_norm), self._in, self._out)

    def __call__(self, x: Tensor) -> Tensor:
        inner = self._in(self._pre_norm(x))
        if self._activation is not None:
            inner = self._activation(inner)
        return self._post_norm(self._out.forward_with_residual(inner, x))


class Bart:
    """An `EncoderDecoder` with the weights of a model whose type is in BART_VARIANTS."""

    def __init__(
        self,
        model: Any,
        linear: LinearFactory,
        step_linear: LinearFactory | None = None,
        encoder_dtype: torch.dtype | None = None,
    ) -> None:
        """Convert the weights.

        Args:
            model: The model of transformers.
            linear: Creates the linear layers of the encoder.
            step_linear: Creates those of a decoding step. None stands for `linear`.
            encoder_dtype: The type of the encoder's activations, and of keys and values. None stands for the type of
                the weights.

        Raises:
            EngineUnavailable: The model has prompts in its layers, which MVP calls `use_prompt`.
        """
        step_linear = step_linear or linear
        config, encoder, decoder = model.config, model.model.encoder, model.model.decoder
        if getattr(config, "use_prompt", False):
            raise EngineUnavailable("the native engine does not support use_prompt, which config.json sets")
        variant = BART_VARIANTS[config.model_type]
        num_layers, num_heads = len(decoder.layers), config.decoder_attention_heads
        self._embedding: Tensor = encoder.embed_tokens.weight
        self._decoder_embedding: Tensor = decoder.embed_tokens.weight
        self._encoder_dtype = encoder_dtype or self._embedding.dtype
        self._embedding_scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0
        self.shape = DecoderShape(
            num_layers, num_heads, config.d_model // num_heads, self._encoder_dtype, self._embedding.device
        )
        self._num_encoder_heads = config.encoder_attention_heads
        self._encoder = [
            (_self_attention(layer, variant, linear), _FeedForward(layer, variant, linear))
            for layer in encoder.layers
        ]
        self._decoder = [
            (
                _self_attention(layer, variant, step_linear),
                _cross_attention(layer, variant, step_linear),
                _FeedForward(layer, variant, step_linear),
            )
            for layer in decoder.layers
        ]
        cross_kv = [
            (projection.weight, projection.bias)
            for layer in decoder.layers
            for projection in (layer.encoder_attn.k_proj, layer.encoder_attn.v_proj)
        ]
        self._cross_kv = linear(*_concatenate(cross_kv))
        self._encoder_positions, self._decoder_positions = (
            part.embed_positions.weight[variant.position_offset :] for part in (encoder, decoder)
        )
        self._encoder_embedding_norm, self._decoder_embedding_norm = (
            _LayerNorm(part.layernorm_embedding) if variant.embedding_norm else _identity
            for part in (encoder, decoder)
        )
        self._encoder_norm, self._decoder_norm = (
            _LayerNorm(part.layer_norm) if variant.pre_norm else _identity for part in (encoder, decoder)
        )
        self.vocab_size = len(model.lm_head.weight)
        self._lm_head = step_linear(
            model.lm_head.weight, model.final_logits_bias[0].to(self._embedding.dtype)
        )

        self._is_pre_norm = variant.pre_norm
        self._compiled_layers: DecoderLayers | None = None

    def compile_decoder(self, library: ctypes.CDLL) -> None:
        """Compute the layers of a decoding step in one call of `library`, which supports the head size.

        Raises:
            EngineUnavailable: Not all operations of the layers are compiled.
        """
        layers = [
            (
                *(
                    Block(
                        _norm_weights(attention.pre_norm, attention.post_norm), attention.qkv, attention.out
                    )
                    for attention in attentions
                ),
                feed_forward.block,
            )
            for *attentions, feed_forward in self._decoder
        ]
        self._compiled_layers = DecoderLayers(library, self.shape, layers, self._is_pre_norm)

    def encode(self, texts: Sequence[Tensor]) -> list[Tensor]:
        """See `EncoderDecoder.encode`."""
        source_lengths = [len(text) for text in texts]
        positions = torch.cat([self._encoder_positions[:length] for length in source_lengths])
        embeddings = self._embedding[torch.cat(list(texts))] * self._embedding_scale
        x = self._encoder_embedding_norm(embeddings + positions).to(self._encoder_dtype)
        for attention, feed_forward in self._encoder:
            qkv = unflatten(attention.qkv(attention.pre_norm(x)), 3, self._num_encoder_heads, -1)
            x = attention.post_norm(
                attention.out.forward_with_residual(encoder_self_attention(qkv, source_lengths), x)
            )
            x = feed_forward(x)
        num_layers, num_heads, head_dim, *_ = self.shape
        cross_kv = self._cross_kv(self._encoder_norm(x))
        return list(torch.split(unflatten(cross_kv, num_layers, 2, num_heads, head_dim), source_lengths))

    def decode_step(self, tokens: Tensor, cache_position: int | Tensor, cache: EncoderDecoderCache) -> Tensor:
        """See `EncoderDecoder.decode_step`."""
        head_sizes, causal_mask = self.shape[1:3], cache.causal_mask(cache_position)
        x = self._decoder_embedding_norm(
            self._decoder_embedding[tokens] * self._embedding_scale + self._decoder_positions[cache_position]
        )
        if self._compiled_layers and (isinstance(cache_position, int) or cache.query_offsets is not None):
            x = self._compiled_layers(x, cache_position, cache)
            return self._lm_head(self._decoder_norm(x))
        for layer_idx, (self_block, cross_block, feed_forward) in enumerate(self._decoder):
            qkv = unflatten(self_block.qkv(self_block.pre_norm(x)), 3, *head_sizes)
            attention = cached_self_attention(qkv, layer_idx, cache_position, cache, causal_mask)
            x = self_block.post_norm(self_block.out.forward_with_residual(attention, x))
            q = unflatten(cross_block.qkv(cross_block.pre_norm(x)), *head_sizes)
            x = cross_block.post_norm(
                cross_block.out.forward_with_residual(cross_attention(q, layer_idx, cache), x)
            )
            x = feed_forward(x)
        return self._lm_head(self._decoder_norm(x)).float()


def _identity(x: Tensor) -> Tensor:
    return x


def _block_norms(module: Any, variant: BartVariant) -> tuple[_Norm, _Norm]:
    """Return what to apply to the input of a block, and to the sum of its input and output."""
    norm = _LayerNorm(module)
    return (norm, _identity) if variant.pre_norm else (_identity, norm)


def _norm_weights(*norms: _Norm) -> NormWeights:
    """Return the weights of the norm of a block, of which the other one is the identity."""
    return next(norm.weights for norm in norms if isinstance(norm, _LayerNorm))


def _fused_activation(activation: Any) -> Activation:
    """Return the activation function if a linear layer can apply it, else "none"."""
    if isinstance(activation, torch.nn.ReLU):
        return "relu"
    is_gelu = isinstance(activation, torch.nn.GELU) or type(activation).__name__ == "GELUActivation"
    return "gelu" if is_gelu else "none"


def _self_attention(layer: Any, variant: BartVariant, linear: LinearFactory) -> _Attention:
    pre_norm, post_norm = _block_norms(layer.self_attn_layer_norm, variant)
    module = layer.self_attn
    keys_values = [(projection.weight, projection.bias) for projection in (module.k_proj, module.v_proj)]
    qkv = linear(*_concatenate([_scaled_query(module), *keys_values]))
    out = linear(module.out_proj.weight, module.out_proj.bias)
    return _Attention(pre_norm, qkv, out, post_norm)


def _cross_attention(layer: Any, variant: BartVariant, linear: LinearFactory) -> _Attention:
    pre_norm, post_norm = _block_norms(layer.encoder_attn_layer_norm, variant)
    module = layer.encoder_attn
    out = linear(module.out_proj.weight, module.out_proj.bias)
    return _Attention(pre_norm, linear(*_scaled_query(module)), out, post_norm)


def _scaled_query(attention: Any) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the query, multiplied by 1 / sqrt(head_dim)."""
    query, scaling = attention.q_proj, attention.scaling
    return query.weight * scaling, query.bias * scaling


def _concatenate(layers: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return weight and bias of one linear layer that computes the outputs of all layers (weight, bias)."""
    weights, biases = zip(*layers, strict=True)
    return torch.cat(weights), torch.cat(biases)
