"""The layers of a decoding step in one call of compiled code.

The operations of torch, about 25 per layer, have an overhead that is as long as the computation of a few rows.
"""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from handlers.engines.base import EngineUnavailable
from handlers.engines.seq2seq.cache import DecoderShape, EncoderDecoderCache
from handlers.engines.seq2seq.decode_attention import ELEMENT_BITS
from handlers.engines.seq2seq.linear import LinearLayer
from handlers.engines.seq2seq.step_linear import LinearWeights, StepLinear


class NormWeights(NamedTuple):
    """The weights of layer normalization, or of root mean square normalization if `bias` is None."""

    weight: Tensor
    bias: Tensor | None
    epsilon: float


class Block(NamedTuple):
    """A block of a layer: self-attention, cross-attention or feed-forward.

    Attributes:
        norm: The normalization of the block.
        first: Computes queries, keys and values, or only queries for cross-attention, or the hidden layer of
            feed-forward with its activation function.
        last: Computes the output of the block.
    """

    norm: NormWeights
    first: LinearLayer
    last: LinearLayer


class _Norm(ctypes.Structure):
    """`Norm` of the C++ code."""

    _fields_ = (("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("epsilon", ctypes.c_double))


class _Layer(ctypes.Structure):
    """`Layer` of the C++ code."""

    _fields_ = (
        *((f"{block}_norm", _Norm) for block in ("self", "cross", "feed_forward")),
        *(
            (f"{block}_{layer}", LinearWeights)
            for block in ("self", "cross", "feed_forward")
            for layer in ("first", "last")
        ),
    )


class _Decoder(ctypes.Structure):
    """`Decoder` of the C++ code."""

    _fields_ = (
        ("layers", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("num_layers", "num_heads", "head_dim", "width", "pre_norm")),
    )


class _Step(ctypes.Structure):
    """`Step` of the C++ code."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("self_kv", "cross_kv", "cross_scales")),
        *((name, ctypes.c_int64) for name in ("self_bits", "cross_bits")),
        *((name, ctypes.c_int64) for name in ("max_rows", "max_steps", "max_texts", "max_tokens")),
        *((name, ctypes.c_int64) for name in ("texts", "beams", "position")),
        *((name, ctypes.c_void_p) for name in ("lengths", "bias")),
        ("bias_stride", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("offsets", "self_lengths")),
    )


class DecoderLayers:
    """The layers of a decoder with activations in float32."""

    def __init__(
        self, library: ctypes.CDLL, shape: DecoderShape, layers: Sequence[Sequence[Block]], pre_norm: bool
    ) -> None:
        """Set the weights.

        Args:
            library: The result of `load_step_kernels`, which supports the head size.
            shape: The dimensions of the decoder.
            layers: Self-attention, cross-attention and feed-forward of each layer.
            pre_norm: Whether normalization is applied to the input of a block, or else to its output.

        Raises:
            EngineUnavailable: A linear layer is not a `StepLinear`.
        """
        self._function, self._blocks = library.decoder_layers, layers  # keeps the memory of the weights
        self._layers = (_Layer * len(layers))(*map(_to_structure, layers))
        _, num_heads, head_dim, *_ = shape
        feed_forward = self._layers[0].feed_forward_first
        width, inner_width = feed_forward.inputs, num_heads * head_dim
        self._decoder = _Decoder(
            ctypes.addressof(self._layers), len(layers), num_heads, head_dim, width, pre_norm
        )
        self._buffer_width = width + 4 * inner_width + feed_forward.outputs

    def __call__(
        self, x: Tensor, cache_position: int | Tensor, cache: EncoderDecoderCache, bias: Tensor | None = None
    ) -> Tensor:
        """Return the output of the last layer, [batch_beam_size, width], and add the step to the cache.

        A `RaggedCache` has `tokens` instead of `batch_beam_size`, in a step with positions of each token.

        Args:
            x: The embeddings, float32 [batch_beam_size, width]. They may be overwritten.
            cache_position: The position of the step.
            cache: The keys and values of the earlier steps and of the sources.
            bias: Added to the scores of self-attention, aligned to the last step, [1, num_heads, 1, steps].
        """
        x, position = x.contiguous(), cache.last_position(cache_position)
        self_kv, cross_kv, cross_scales = cache.start_compiled_step(position)
        step = _Step(
            *(self_kv.data_ptr(), cross_kv.data_ptr()),
            None if cross_scales is None else cross_scales.data_ptr(),
            *(ELEMENT_BITS[self_kv.dtype], ELEMENT_BITS[cross_kv.dtype]),
            *(self_kv.shape[2], self_kv.shape[4], cross_kv.shape[2], cross_kv.shape[4]),
            *(cache.batch_size, cache.num_beams, position),
            cache.source_lengths.data_ptr(),
            None if bias is None else bias.data_ptr(),
            0 if bias is None else bias.stride(1),
            *(
                None if tensor is None else tensor.data_ptr()
                for tensor in (cache.query_offsets, cache.query_lengths)
            ),
        )
        buffer = x.new_empty(len(x) * self._buffer_width)
        self._function(ctypes.byref(self._decoder), ctypes.byref(step), x.data_ptr(), buffer.data_ptr())
        return x


def _to_structure(layer: Sequence[Block]) -> _Layer:
    norms = [
        _Norm(
            block.norm.weight.data_ptr(),
            None if block.norm.bias is None else block.norm.bias.data_ptr(),
            block.norm.epsilon,
        )
        for block in layer
    ]
    linear_layers = [linear for block in layer for linear in (block.first, block.last)]
    weights = [linear.weights for linear in linear_layers if isinstance(linear, StepLinear)]
    if len(weights) < len(linear_layers):
        raise EngineUnavailable("the linear layers are not compiled")
    return _Layer(*norms, *weights)
