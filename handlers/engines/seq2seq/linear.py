"""A linear layer whose weight is laid out once for the CPU that multiplies it."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Activation = Literal["none", "relu", "gelu"]

_FUNCTIONS = {"none": lambda x: x, "relu": functional.relu, "gelu": functional.gelu}


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


def _can_pack() -> bool:
    operators = torch.ops.mkldnn
    names = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    return all(hasattr(operators, name) for name in names) and bool(operators._is_mkldnn_bf16_supported())
