"""Linear layers whose weights are laid out once for the CPU that multiplies them: as they are, or in int8."""

from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

Activation = Literal["none", "relu", "gelu"]

_FUNCTIONS = {"none": lambda x: x, "relu": functional.relu, "gelu": functional.gelu}


class Layer(Protocol):
    """x [rows, inputs] -> activation(x W^T + b) [rows, outputs]."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def add_to(self, x: Tensor, residual: Tensor) -> Tensor:
        """residual + x W^T + b."""
        ...


class MakeLayer(Protocol):
    def __call__(
        self, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none"
    ) -> Layer: ...


class Linear:
    """x [..., inputs] -> activation(x W^T + b) [..., outputs].

    In bf16 on a CPU, oneDNN otherwise lays the weight out anew at every call, which for a few rows costs as much as
    the product. The operators are those that torch.compile puts in for a frozen linear layer.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none") -> None:
        self._bias, self._activation = bias, activation
        self._packed = weight.dtype == torch.bfloat16 and weight.device.type == "cpu" and _can_pack()
        self._weight = (
            torch.ops.mkldnn._reorder_linear_weight(weight) if self._packed else weight.contiguous()
        )

    def __call__(self, x: Tensor) -> Tensor:
        if self._packed:
            result: Tensor = torch.ops.mkldnn._linear_pointwise(
                x, self._weight, self._bias, self._activation, [], "none"
            )
            return result
        plain: Tensor = _FUNCTIONS[self._activation](functional.linear(x, self._weight, self._bias))
        return plain

    def add_to(self, x: Tensor, residual: Tensor) -> Tensor:
        """residual + x W^T + b."""
        if self._packed:
            result: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
                x, residual, self._weight, self._bias, "add"
            )
            return result
        return residual + functional.linear(x, self._weight, self._bias)


class Int8Linear:
    """Weights in int8 with a scale for each output, and x rounded to int8 with a scale for each of its rows.

    So a row's result does not depend on its neighbors. Scales and rounding are those of LLM.int8() without its
    outliers (Dettmers et al. 2022, https://arxiv.org/abs/2208.07339, section 2.1, "row-wise"). oneDNN is fast for
    unsigned x only: 128 is added to it, and taken off as its zero point.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none") -> None:
        scales = weight.float().abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        rounded = (weight / scales[:, None]).round().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(rounded, None)
        self._scales, self._zeros = scales, torch.zeros(len(scales), dtype=torch.long)
        self._bias, self._activation = bias, activation

    def __call__(self, x: Tensor) -> Tensor:
        product = self._product(x)
        if self._bias is not None:
            product += self._bias
        result: Tensor = _FUNCTIONS[self._activation](product)
        return result

    def add_to(self, x: Tensor, residual: Tensor) -> Tensor:
        """residual + x W^T + b."""
        product = self._product(x)
        if self._bias is not None:
            product += self._bias
        return product.add_(residual)

    def _product(self, x: Tensor) -> Tensor:
        largest = x.abs().amax(-1, keepdim=True).clamp_min_(torch.finfo(x.dtype).tiny)
        # In bf16 the largest may come to 256, which would wrap around.
        rounded = (x * (127 / largest)).add_(128).round_().clamp_(1, 255).to(torch.uint8)
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            rounded, 1.0, 128, self._weight, self._scales, self._zeros, None, 1.0, 0, x.dtype, "none", [], ""
        )
        return product.mul_(largest / 127)


def _can_pack() -> bool:
    operators = torch.ops.mkldnn
    names = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    return all(hasattr(operators, name) for name in names) and bool(operators._is_mkldnn_bf16_supported())
