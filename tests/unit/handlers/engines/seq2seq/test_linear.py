"""Linear layers in packed bf16 and in int8."""

import ctypes
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.core.device import FAST_INT8, has_any
from handlers.engines.seq2seq.linear import Int8Linear, Linear


@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
@pytest.mark.parametrize("biased", [True, False])
def test_packed_layer_equals_torch_linear(activation: Any, biased: bool) -> None:
    weight, bias = torch.randn(24, 16).bfloat16(), torch.randn(24).bfloat16() if biased else None
    x, residual = torch.randn(2, 5, 16).bfloat16(), torch.randn(2, 5, 24).bfloat16()
    packed = Linear(weight, bias, activation)
    unpacked = Linear(weight.float(), None if bias is None else bias.float(), activation)
    torch.testing.assert_close(packed(x).float(), unpacked(x.float()), atol=0.05, rtol=0.02)
    if activation == "none":
        expected = unpacked.forward_with_residual(x.float(), residual.float())
        torch.testing.assert_close(
            packed.forward_with_residual(x, residual).float(), expected, atol=0.08, rtol=0.02
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_int8_layer_is_close_and_computes_rows_independently(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    weight, x, bias = (torch.randn(*shape, generator=generator) for shape in ((24, 64), (200, 64), (24,)))
    weight[3], x[2] = 0.0, 0.0
    x[4] *= 1000  # an outlier, which must not reduce the precision of other rows
    layer = Int8Linear(weight.to(dtype), bias.to(dtype), "relu")
    result, expected = layer(x.to(dtype)).float(), torch.relu(x @ weight.T + bias)
    tolerance = 0.03 if has_any(FAST_INT8) else 0.05  # 7 bits
    assert torch.linalg.vector_norm(result - expected, dim=1).le(tolerance * expected.norm(dim=1)).all()
    for row in range(len(x)):
        assert layer(x[row : row + 1].to(dtype)).float().equal(result[row : row + 1])
    layer, residual = Int8Linear(weight.to(dtype)), torch.randn(200, 24, generator=generator).to(dtype)
    assert layer.forward_with_residual(x.to(dtype), residual).equal(layer(x.to(dtype)) + residual)


@pytest.mark.parametrize("is_fast", [True, False])
def test_largest_int8_weights_do_not_saturate(monkeypatch: pytest.MonkeyPatch, is_fast: bool) -> None:
    if is_fast and not has_any(FAST_INT8):
        pytest.skip("this CPU has no fast int8")
    monkeypatch.setattr("handlers.engines.seq2seq.linear.has_any", lambda flags: is_fast)
    for sign in (1, -1):
        layer = Int8Linear(torch.full((24, 64), 0.5 * sign))
        assert layer._weight.to_dense().abs().max() == (127 if is_fast else 63)
        torch.testing.assert_close(
            layer(torch.ones(3, 64)), torch.full((3, 24), 32.0 * sign), rtol=1e-4, atol=0
        )


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    rows=st.integers(1, 20),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 90),
    biased=st.booleans(),
    activation=st.sampled_from(["none", "relu", "gelu"]),
    seed=st.integers(0, 99),
)
def test_compiled_int8_layer_equals_that_of_torch(
    kernels: ctypes.CDLL,
    dtype: torch.dtype,
    rows: int,
    inputs: int,
    outputs: int,
    biased: bool,
    activation: Any,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, x, bias, residual = (
        torch.randn(*shape, generator=generator).to(dtype)
        for shape in ((outputs, inputs), (rows, inputs), (outputs,), (rows, outputs))
    )
    x[0] = 0
    arguments = (weight, bias if biased else None, activation)
    layer, expected = Int8Linear(*arguments, kernels), Int8Linear(*arguments)
    # In bf16 torch rounds x after scaling it, so a number may be quantized to one of the next few.
    tolerance = (0.02, 0.0) if dtype == torch.float32 else (0.15, 0.02)
    close = {"atol": tolerance[0] * inputs**0.5, "rtol": tolerance[1]}
    result = layer(x)
    torch.testing.assert_close(result, expected(x), **close)
    torch.testing.assert_close(
        layer.forward_with_residual(x, residual), expected.forward_with_residual(x, residual), **close
    )
    for row in range(rows):
        assert layer(x[row : row + 1]).equal(result[row : row + 1])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_compiled_int8_layer_propagates_numbers_that_are_not_finite(
    kernels: ctypes.CDLL, value: float
) -> None:
    for position in (0, 17, 39):
        x = torch.ones(2, 40)
        x[0, position] = value
        result = Int8Linear(torch.ones(3, 40), library=kernels)(x)
        assert result[0].isnan().all()
        torch.testing.assert_close(result[1], torch.full((3,), 40.0), rtol=1e-4, atol=0)
