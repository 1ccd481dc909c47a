"""Linear layers of a decoding step in compiled code, with weights in float32, bf16 or int8.

A decoding step multiplies few rows by all weights of the decoder, so it takes as long as reading them from memory.
BLAS libraries need up to twice that time for 2 to 16 rows.
"""

import ctypes
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from handlers.engines.seq2seq.linear import ACTIVATION_CODES, ZERO_POINT, Activation

WeightBits = Literal[32, 16, 8]


class LinearWeights(ctypes.Structure):
    """`Weights` of the C++ code."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("data", "scales", "bias")),
        *((name, ctypes.c_int64) for name in ("inputs", "outputs", "bits", "activation")),
    )


class StepLinear:
    """A linear layer for few rows in float32: activation(x W^T + b), [..., inputs] -> [..., outputs].

    In int8, weights have a scale for each output. With VNNI, x is quantized too, with a scale for each row. In bf16,
    x is rounded to bf16 too if the CPU has AVX512_BF16. Otherwise x remains in float32. Sums are float32, and the
    result of a row does not depend on the other rows.

    Attributes:
        outputs: The number of outputs.
        weights: The weights as an argument of the compiled code. They are valid as long as this layer.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        bits: WeightBits,
        weight: Tensor,
        bias: Tensor | None = None,
        activation: Activation = "none",
    ) -> None:
        """Convert the weights.

        Args:
            library: The result of `load_step_kernels`.
            bits: 32 for float32 weights, 16 for bf16, 8 for int8.
            weight: float32 [outputs, inputs].
            bias: float32 [outputs].
            activation: The function to apply to the result.
        """
        self._function: Any = library.step_linear
        self.outputs, self._inputs = weight.shape
        self._scales, width = None, library.step_linear_panel_width()
        if bits == 8:
            self._scales = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
            weight = (weight / self._scales[:, None]).round().to(torch.int8)
        if bits == 16:
            weight = weight.bfloat16()
        group_size = library.step_linear_group_size(bits)
        self._panels = _to_panels(weight, width, group_size)
        if bits == 8 and group_size > 1:
            self._panels.view(torch.uint8).bitwise_xor_(ZERO_POINT)
        self._bias = None if bias is None else bias.contiguous()
        pointers = (self._panels, self._scales, self._bias)
        self.weights = LinearWeights(
            *(None if tensor is None else tensor.data_ptr() for tensor in pointers),
            *(self._inputs, self.outputs, bits, ACTIVATION_CODES[activation]),
        )
        self._weights_pointer = ctypes.byref(self.weights)

    def __call__(self, x: Tensor) -> Tensor:
        return self._multiply(x, None)

    def forward_with_residual(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return residual + x W^T + b."""
        return self._multiply(x, residual.contiguous())

    def _multiply(self, x: Tensor, residual: Tensor | None) -> Tensor:
        x = x.contiguous()
        result = x.new_empty(*x.shape[:-1], self.outputs)
        self._function(
            *(self._weights_pointer, x.data_ptr(), x.numel() // self._inputs),
            *(None if residual is None else residual.data_ptr(), result.data_ptr()),
        )
        return result


def _to_panels(weight: Tensor, width: int, group_size: int) -> Tensor:
    """Return panels of `width` outputs with groups of inputs, padded with zeros.

    The shape is [outputs, inputs] -> [panels, inputs / group_size, width, group_size].
    """
    padded = functional.pad(weight, (0, -weight.shape[1] % group_size, 0, -len(weight) % width))
    groups = padded.view(-1, width, padded.shape[1] // group_size, group_size)
    return groups.transpose(1, 2).contiguous()
