"""T5 (Raffel et al. 2020, https://arxiv.org/abs/1910.10683), including the gated layers of T5 1.1 and mT5."""

import ctypes
from collections.abc import Sequence
from functools import partial
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
from handlers.engines.seq2seq.cache import MAX_DECODE_STEPS, DecoderShape, EncoderDecoderCache
from handlers.engines.seq2seq.decoder_layers import Block, DecoderLayers, NormWeights
from handlers.engines.seq2seq.linear import LinearFactory, LinearLayer


class _RmsNorm:
    """Root mean square normalization (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467)."""

    def __init__(self, module: Any) -> None:
        self._weight, self._epsilon = module.weight, module.variance_epsilon
        self.weights = NormWeights(self._weight, None, self._epsilon)

    def __call__(self, x: Tensor) -> Tensor:
        x32 = x.float()
        mean_square = x32.square().mean(-1, keepdim=True)
        normalized: Tensor = self._weight.to(x.dtype) * (x32 * torch.rsqrt(mean_square + self._epsilon)).to(
            x.dtype
        )
        return normalized


class _Attention(NamedTuple):
    """The layers of an attention block. For cross-attention `qkv` computes the query only.

    T5 does not scale queries.
    """

    norm: _RmsNorm
    qkv: LinearLayer
    out: LinearLayer


class _FeedForward:
    def __init__(self, module: Any, linear: LinearFactory) -> None:
        self._norm, dense = _RmsNorm(module.layer_norm), module.DenseReluDense
        self._is_gated = hasattr(dense, "wi_0")
        self._activation = None
        if self._is_gated:
            self._in = linear(torch.cat([dense.wi_0.weight, dense.wi_1.weight]))
            self._activation = dense.act
        elif isinstance(dense.act, torch.nn.ReLU):
            self._in = linear(dense.wi.weight, activation="relu")
        else:
            self._in, self._activation = linear(dense.wi.weight), dense.act
        self._out = linear(dense.wo.weight)

    @property
    def block(self) -> Block:
        """The weights.

        Raises:
            EngineUnavailable: The activation function is not part of the first linear layer.
        """
        if self._is_gated or self._activation is not None:
            raise EngineUnavailable("the activation function is not compiled")
        return Block(self._norm.weights, self._in, self._out)

    def __call__(self, x: Tensor) -> Tensor:
        inner = self._in(self._norm(x))
        if self._is_gated:
            gate, inner = inner.chunk(2, -1)
            inner = self._activation(gate) * inner  # type: ignore[misc]
        elif self._activation is not None:
            inner = self._activation(inner)
        return self._out.forward_with_residual(inner, x)


class T5:
    """An `EncoderDecoder` with the weights of a T5ForConditionalGeneration or MT5ForConditionalGeneration."""

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
        """
        step_linear = step_linear or linear
        config, encoder, decoder = model.config, model.encoder, model.decoder
        self._embedding: Tensor = encoder.embed_tokens.weight
        self._decoder_embedding: Tensor = decoder.embed_tokens.weight
        self._encoder_dtype = encoder_dtype or self._embedding.dtype
        self.shape = DecoderShape(
            *(len(decoder.block), config.num_heads, config.d_kv),
            *(self._encoder_dtype, self._embedding.device),
        )
        self._encoder = [
            (_self_attention(block.layer[0], linear), _FeedForward(block.layer[-1], linear))
            for block in encoder.block
        ]
        self._decoder = [
            (
                _self_attention(block.layer[0], step_linear),
                _cross_attention(block.layer[1], step_linear),
                _FeedForward(block.layer[-1], step_linear),
            )
            for block in decoder.block
        ]
        cross_modules = [block.layer[1].EncDecAttention for block in decoder.block]
        self._cross_kv = linear(
            torch.cat([part.weight for module in cross_modules for part in (module.k, module.v)])
        )
        self._encoder_norm, self._decoder_norm = (
            _RmsNorm(part.final_layer_norm) for part in (encoder, decoder)
        )
        self._encoder_bias, self._decoder_bias = (
            _RelativePositionBias(part.block[0].layer[0].SelfAttention) for part in (encoder, decoder)
        )
        # T5 scales the output if the embedding is also the last layer. mT5's configuration has no such setting.
        is_scaled = getattr(config, "scale_decoder_outputs", False)
        self._output_scale = config.d_model**-0.5 if is_scaled else 1.0
        self.vocab_size = len(model.lm_head.weight)
        self._lm_head = step_linear(model.lm_head.weight)
        self._compiled_layers: DecoderLayers | None = None

    def compile_decoder(self, library: ctypes.CDLL) -> None:
        """Compute the layers of a decoding step in one call of `library`, which supports the head size.

        Raises:
            EngineUnavailable: Not all operations of the layers are compiled.
        """
        layers = [
            (
                *(Block(attention.norm.weights, attention.qkv, attention.out) for attention in attentions),
                feed_forward.block,
            )
            for *attentions, feed_forward in self._decoder
        ]
        self._compiled_layers = DecoderLayers(library, self.shape, layers, pre_norm=True)

    def encode(self, texts: Sequence[Tensor]) -> list[Tensor]:
        """See `EncoderDecoder.encode`."""
        source_lengths = [len(text) for text in texts]
        x = self._embedding[torch.cat(list(texts))].to(self._encoder_dtype)
        bias = self._encoder_bias.for_encoder(max(source_lengths)).to(x.dtype)
        for attention, feed_forward in self._encoder:
            qkv = unflatten(attention.qkv(attention.norm(x)), 3, *self.shape[1:3])
            x = attention.out.forward_with_residual(encoder_self_attention(qkv, source_lengths, bias), x)
            x = feed_forward(x)
        cross_kv = self._cross_kv(self._encoder_norm(x))
        num_layers, num_heads, head_dim, *_ = self.shape
        return list(torch.split(unflatten(cross_kv, num_layers, 2, num_heads, head_dim), source_lengths))

    def decode_step(self, tokens: Tensor, cache_position: int | Tensor, cache: EncoderDecoderCache) -> Tensor:
        """See `EncoderDecoder.decode_step`."""
        head_sizes = self.shape[1:3]
        x = self._decoder_embedding[tokens]
        bias = self._compute_step_bias(cache_position, cache)
        if self._compiled_layers and (isinstance(cache_position, int) or cache.query_offsets is not None):
            x = self._compiled_layers(x, cache_position, cache, bias)
            return self._lm_head(self._decoder_norm(x) * self._output_scale)
        for layer_idx, (self_block, cross_block, feed_forward) in enumerate(self._decoder):
            qkv = unflatten(self_block.qkv(self_block.norm(x)), 3, *head_sizes)
            x = self_block.out.forward_with_residual(
                cached_self_attention(qkv, layer_idx, cache_position, cache, bias), x
            )
            q = unflatten(cross_block.qkv(cross_block.norm(x)), *head_sizes)
            x = cross_block.out.forward_with_residual(cross_attention(q, layer_idx, cache), x)
            x = feed_forward(x)
        return self._lm_head(self._decoder_norm(x) * self._output_scale).float()

    def _compute_step_bias(self, cache_position: int | Tensor, cache: EncoderDecoderCache) -> Tensor:
        causal_mask = cache.causal_mask(cache_position)
        if causal_mask is None:
            return self._decoder_bias.for_step(cache.last_position(cache_position))
        positions = cache.query_positions(torch.as_tensor(cache_position, device=causal_mask.device))
        return self._decoder_bias.for_positions(positions, causal_mask)


class _RelativePositionBias:
    """The relative position bias, in buckets that widen with the distance (section 2.1 of the T5 paper)."""

    def __init__(self, module: Any) -> None:
        self._weight: Tensor = module.relative_attention_bias.weight
        self._bucket = partial(
            module._relative_position_bucket,
            bidirectional=not module.is_decoder,
            num_buckets=module.relative_attention_num_buckets,
            max_distance=module.relative_attention_max_distance,
        )
        self._step_bias = self._for_steps(MAX_DECODE_STEPS)

    def for_encoder(self, length: int) -> Tensor:
        """Return the bias between all positions: [1, num_heads, length, length]."""
        positions = torch.arange(length, device=self._weight.device)
        return self._lookup(positions - positions[:, None])

    def for_step(self, position: int) -> Tensor:
        """Return the bias from a position to all positions up to it: [1, num_heads, 1, position + 1]."""
        all_steps = self._step_bias if position < MAX_DECODE_STEPS else self._for_steps(position + 1)
        bias = all_steps[..., all_steps.shape[-1] - position - 1 :]
        return bias if bias.device.type == "cpu" else bias.contiguous()  # CUDA kernels require alignment

    def for_positions(self, positions: Tensor, causal_mask: Tensor) -> Tensor:
        """Return bias + `causal_mask` for positions that are not known when a step is captured.

        Args:
            positions: The position of each query, [groups, queries].
            causal_mask: [groups, 1, queries, steps]. A step can be captured with up to MAX_DECODE_STEPS steps.

        Returns:
            [groups, num_heads, queries, steps]
        """
        num_steps = causal_mask.shape[-1]
        all_steps = self._step_bias if num_steps <= MAX_DECODE_STEPS else self._for_steps(num_steps)
        last = all_steps.shape[-1] - 1
        distances = torch.arange(num_steps, device=causal_mask.device) - positions[..., None]
        bias = all_steps[0, :, 0, (distances + last).clamp(max=last)]
        return bias.transpose(0, 1) + causal_mask

    def _for_steps(self, count: int) -> Tensor:
        return self._lookup(torch.arange(1 - count, 1, device=self._weight.device)[None])

    def _lookup(self, distances: Tensor) -> Tensor:
        """Return the bias of relative positions: [queries, keys] -> [1, num_heads, queries, keys]."""
        buckets = self._bucket(distances)
        return functional.embedding(buckets, self._weight).permute(2, 0, 1)[None].contiguous()


def _self_attention(layer: Any, linear: LinearFactory) -> _Attention:
    module = layer.SelfAttention
    qkv = torch.cat([module.q.weight, module.k.weight, module.v.weight])
    return _Attention(_RmsNorm(layer.layer_norm), linear(qkv), linear(module.o.weight))


def _cross_attention(layer: Any, linear: LinearFactory) -> _Attention:
    module = layer.EncDecAttention
    return _Attention(_RmsNorm(layer.layer_norm), linear(module.q.weight), linear(module.o.weight))
