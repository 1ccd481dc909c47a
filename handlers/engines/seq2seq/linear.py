"""Linear layers in the model's type or in int8, with weights that are converted once to the layout of CPU kernels."""

import ctypes
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from handlers.core.device import FAST_INT8, has_any

Activation = Literal["none", "relu", "gelu"]

ACTIVATION_CODES: dict[Activation, int] = {"none": 0, "relu": 1, "gelu": 2}
"""The values of `Activation` of the C++ code."""

ACTIVATIONS = {"none": lambda x: x, "relu": functional.relu, "gelu": functional.gelu}


ZERO_POINT = 128
"""The value of 0 in quantized rows."""


class LinearLayer(Protocol):
    """A linear layer: activation(x W^T + b), [rows, inputs] -> [rows, outputs]."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def forward_with_residual(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return residual + x W^T + b."""
        ...


class LinearFactory(Protocol):
    """A function that creates a linear layer from a weight [outputs, inputs] and a bias [outputs]."""

    def __call__(
        self, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none"
    ) -> LinearLayer: ...


class Linear:
    """A linear layer in one type: activation(x W^T + b), [..., inputs] -> [..., outputs].

    In bf16 on a CPU, oneDNN would otherwise convert the weight at every call, which for a few rows takes as long as
    the product. The operators are those that torch.compile uses for a frozen linear layer.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        activation: Activation = "none",
        dtype: torch.dtype | None = None,
    ) -> None:
        """Convert the weights to `dtype`, or keep their type if it is None."""
        weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
        self._bias, self._activation = bias, activation
        self._is_packed = weight.dtype == torch.bfloat16 and weight.device.type == "cpu" and _can_pack()
        self._weight = (
            torch.ops.mkldnn._reorder_linear_weight(weight) if self._is_packed else weight.contiguous()
        )

    def __call__(self, x: Tensor) -> Tensor:
        if self._is_packed:
            result: Tensor = torch.ops.mkldnn._linear_pointwise(
                x, self._weight, self._bias, self._activation, [], "none"
            )
            return result
        unpacked: Tensor = ACTIVATIONS[self._activation](functional.linear(x, self._weight, self._bias))
        return unpacked

    def forward_with_residual(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return residual + x W^T + b."""
        if self._is_packed:
            result: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
                x, residual, self._weight, self._bias, "add"
            )
            return result
        return residual + functional.linear(x, self._weight, self._bias)


class Int8Linear:
    """A linear layer with weights and x in int8: activation(x W^T + b).

    The weights have a scale for each output and x has a scale for each row, so the result of a row does not depend on
    the other rows. Scales and rounding are those of LLM.int8() without its outliers (Dettmers et al. 2022,
    https://arxiv.org/abs/2208.07339, section 2.1, "row-wise"). oneDNN is only fast for unsigned x: 128 is added to
    x, and passed as its zero point. Without int8 instructions (FAST_INT8), oneDNN adds two products in 16 bits.
    Weights then have 7 bits, so that these sums, at most 2 * 255 * 63, do not saturate.

    Compiled code quantizes x and completes the product in one pass each, instead of up to eight operations of torch.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        activation: Activation = "none",
        library: ctypes.CDLL | None = None,
    ) -> None:
        """Convert the weights.

        Args:
            weight: bf16 or float32 [outputs, inputs].
            bias: The same type, [outputs].
            activation: The function to apply to the result.
            library: The result of `load_step_kernels`, or None to use torch's operations.
        """
        scales = weight.float().abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny)
        scales /= 127 if has_any(FAST_INT8) else 63
        quantized = (weight / scales[:, None]).round().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(quantized, None)
        self._scales, self._zero_points = scales, torch.zeros(len(scales), dtype=torch.long)
        self._bias, self._activation, self._library = bias, activation, library
        self._float_bias = None if bias is None else bias.float().contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        if self._library is not None:
            return self._compiled_product(self._library, x, self._activation, None)
        result: Tensor = ACTIVATIONS[self._activation](self._product(x))
        return result

    def forward_with_residual(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return residual + x W^T + b."""
        if self._library is not None:
            return self._compiled_product(self._library, x, "none", residual.contiguous())
        return self._product(x).add_(residual)

    def _compiled_product(
        self, library: ctypes.CDLL, x: Tensor, activation: Activation, residual: Tensor | None
    ) -> Tensor:
        """Return activation(residual + x W^T + b)."""
        quantized, scales = quantize_rows(library, x)
        product = self._multiply(quantized, x.dtype)
        library.finish_rows(
            *(product.data_ptr(), scales.numel(), product.shape[-1], 8 * x.element_size(), scales.data_ptr()),
            None if self._float_bias is None else self._float_bias.data_ptr(),
            None if residual is None else residual.data_ptr(),
            ACTIVATION_CODES[activation],
        )
        return product

    def _multiply(self, quantized: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the product of (quantized - ZERO_POINT) and the weights."""
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            *(quantized, 1.0, ZERO_POINT, self._weight, self._scales, self._zero_points),
            *(None, 1.0, 0, dtype, "none", [], ""),
        )
        return product

    def _product(self, x: Tensor) -> Tensor:
        """Return x W^T + b."""
        row_max = x.abs().amax(-1, keepdim=True).clamp_min_(torch.finfo(x.dtype).tiny)
        # In bf16 the largest value may become 256, which would wrap around.
        quantized = (x * (127 / row_max)).add_(ZERO_POINT).round_().clamp_(1, 255).to(torch.uint8)
        product = self._multiply(quantized, x.dtype).mul_(row_max / 127)
        if self._bias is not None:
            product += self._bias
        return product


def quantize_rows(library: ctypes.CDLL, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows in 8 bits with the zero point ZERO_POINT, and the scale of each row.

    Args:
        library: The result of `load_step_kernels`.
        x: bf16 or float32 [..., inputs].

    Returns:
        uint8 [..., inputs] and float32 [...].
    """
    x = x.contiguous()
    quantized, scales = torch.empty(x.shape, dtype=torch.uint8), torch.empty(x.shape[:-1])
    library.quantize_rows(
        *(x.data_ptr(), scales.numel(), x.shape[-1], 8 * x.element_size()),
        *(quantized.data_ptr(), scales.data_ptr()),
    )
    return quantized, scales


def _can_pack() -> bool:
    operators = torch.ops.mkldnn
    names = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    return all(hasattr(operators, name) for name in names) and bool(operators._is_mkldnn_bf16_supported())
