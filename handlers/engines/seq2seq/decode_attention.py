"""Attention of a decoding step in compiled code, for bf16 and fp32 on CPUs with AVX2 or AVX-512.

torch's matrix products for few queries and long caches take two to three times as long as reading the caches from
memory does. Keys and values of sources in int8 need half of the memory of bf16, and a quarter of fp32's.
"""

import ctypes

import torch
from torch import Tensor

from handlers.engines.base import EngineUnavailable
from handlers.engines.seq2seq.linear import ZERO_POINT, quantize_rows

HEAD_SIZES = frozenset({32, 64, 128})
"""The head sizes that the code is compiled for."""

ELEMENT_BITS = {torch.int8: 8, torch.bfloat16: 16, torch.float32: 32}
"""The supported types and the argument that selects them. Only keys and values can be int8."""


class _Queries(ctypes.Structure):
    """`Queries` of the C++ code."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("row_stride", "texts", "beams", "heads")),
        ("offsets", ctypes.c_void_p),
    )


class _KeysValues(ctypes.Structure):
    """`KeysValues` of the C++ code."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
        *((name, ctypes.c_int64) for name in ("text_stride", "head_stride", "length")),
        *((name, ctypes.c_void_p) for name in ("lengths", "bias")),
        *((name, ctypes.c_int64) for name in ("bias_stride", "bias_length", "is_causal")),
        *((name, ctypes.c_void_p) for name in ("key_scales", "value_scales")),
        ("bits", ctypes.c_int64),
    )


class DecodeAttention:
    """The attention of a decoding step: softmax(q k^T + bias) v, computed in float32 from bf16, float32 or int8.

    Attributes:
        int8_sources: Whether caches store the keys and values of sources in int8.
    """

    def __init__(self, library: ctypes.CDLL, head_dim: int, int8_sources: bool = False) -> None:
        """Set the compiled function.

        Args:
            library: The result of `load_step_kernels`.
            head_dim: The head size of the model.
            int8_sources: Store the keys and values of sources in int8.

        Raises:
            EngineUnavailable: The library does not support the head size.
        """
        if head_dim not in HEAD_SIZES:
            *sizes, largest = sorted(HEAD_SIZES)
            raise EngineUnavailable(
                f"head size {head_dim} is not supported ({', '.join(map(str, sizes))} or {largest})"
            )
        self._library, self.int8_sources = library, int8_sources

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        lengths: Tensor | None,
        bias: Tensor | None = None,
        *,
        offsets: Tensor | None = None,
        is_causal: bool = False,
        scales: Tensor | None = None,
    ) -> Tensor:
        """Return the attention of each query, [queries, num_heads * head_dim].

        Queries, bias and result have the same type, bf16 or float32. Keys and values have this type, bf16 or int8.
        Other types raise KeyError.

        Args:
            q: Scaled queries, [batch_size, num_beams, num_heads, head_dim], or [queries, 1, num_heads, head_dim] with
                `offsets`.
            k: Keys, [batch_size, num_heads, length, head_dim].
            v: Values, with the shape and the strides of the keys.
            lengths: The number of keys of each text to attend to, int64 [batch_size]. None selects all keys.
            bias: Added to the scores, [1, num_heads, 1, length]; with `is_causal` aligned to the last key.
            offsets: The first query of each text, followed by the number of queries, int64 [batch_size + 1].
            is_causal: The last query of a text attends to its `lengths` keys, and each one before it to one key less.
            scales: The steps of int8 keys and values, float32 [2, batch_size, num_heads, length], with the strides of
                the keys divided by head_dim. None if keys and values are not int8.
        """
        assert (k.dtype == torch.int8) == (scales is not None), (k.dtype, scales)
        num_rows, num_beams, num_heads, head_dim = q.shape
        result = q.new_empty(num_rows * num_beams, num_heads * head_dim)
        row_stride = q.stride(1) if num_beams > 1 else q.stride(0)
        queries = _Queries(
            *(q.data_ptr(), row_stride, k.shape[0], num_beams, num_heads),
            None if offsets is None else offsets.data_ptr(),
        )
        keys_values = _KeysValues(
            *(k.data_ptr(), v.data_ptr(), k.stride(0), k.stride(1), k.shape[2]),
            None if lengths is None else lengths.data_ptr(),
            None if bias is None else bias.data_ptr(),
            *((0, 0) if bias is None else (bias.stride(1), bias.shape[3])),
            is_causal,
            *((None, None) if scales is None else (scales[0].data_ptr(), scales[1].data_ptr())),
            ELEMENT_BITS[k.dtype],
        )
        self._library.step_attention(
            *(ctypes.byref(queries), ctypes.byref(keys_values), result.data_ptr(), head_dim),
            ELEMENT_BITS[q.dtype],
        )
        return result

    def quantize(self, keys_values: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys or values in int8, with a scale for each: [..., head_dim] -> [..., head_dim], [...]."""
        quantized, scales = quantize_rows(self._library, keys_values)
        return quantized.bitwise_xor_(ZERO_POINT).view(torch.int8), scales
