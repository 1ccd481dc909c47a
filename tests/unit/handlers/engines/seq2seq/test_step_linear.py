"""Linear layers of a decoding step in compiled code."""

import ctypes
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from handlers.engines.seq2seq.linear import Linear
from handlers.engines.seq2seq.step_linear import StepLinear


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    bits=st.sampled_from([32, 16, 8]),
    rows=st.integers(1, 40),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 150),
    biased=st.booleans(),
    activation=st.sampled_from(["none", "relu", "gelu"]),
    seed=st.integers(0, 99),
)
def test_layer_equals_torch_linear_and_computes_rows_independently(
    kernels: ctypes.CDLL,
    bits: Any,
    rows: int,
    inputs: int,
    outputs: int,
    biased: bool,
    activation: Any,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, x, bias, residual = (
        torch.randn(*shape, generator=generator)
        for shape in ((outputs, inputs), (rows, inputs), (outputs,), (rows, outputs))
    )
    arguments = (weight, bias if biased else None, activation)
    layer = StepLinear(kernels, bits, *arguments)
    if bits == 8:  # the largest rounding error is half a step of the output's scale
        step = weight.abs().amax(1, keepdim=True) / 127
        arguments = ((weight / step).round() * step, *arguments[1:])
        assert (arguments[0] - weight).abs().le(0.51 * step).all()
    expected, expected_x = Linear(*arguments), x
    if bits == 8 and kernels.step_linear_group_size(8) == 4:  # with VNNI, x is rounded as well
        row_max = x.abs().amax(1, keepdim=True)
        expected_x = (x * (127 / row_max)).round() * (row_max / 127)
    if bits == 16:
        expected = Linear(weight.bfloat16().float(), *arguments[1:])
        if kernels.step_linear_group_size(16) == 2:  # with AVX512_BF16, x is rounded as well
            expected_x = x.bfloat16().float()
    result = layer(x)
    torch.testing.assert_close(result, expected(expected_x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        layer.forward_with_residual(x, residual),
        expected.forward_with_residual(expected_x, residual),
        atol=1e-4,
        rtol=1e-4,
    )
    for row in range(rows):
        assert layer(x[row : row + 1]).equal(result[row : row + 1])


def test_result_does_not_depend_on_threads_strides_and_dimensions(kernels: ctypes.CDLL) -> None:
    layer = StepLinear(kernels, 8, torch.randn(100, 64), torch.randn(100))
    x = torch.randn(6, 64)
    expected = layer(x)
    torch.set_num_threads(2)
    try:
        assert layer(x).equal(expected)
    finally:
        torch.set_num_threads(1)
    assert layer(x.T.contiguous().T).equal(expected)
    assert layer(x.view(2, 3, 64)).equal(expected.view(2, 3, 100))


def test_zero_weights_in_int8(kernels: ctypes.CDLL) -> None:
    assert StepLinear(kernels, 8, torch.zeros(3, 5))(torch.ones(1, 5)).equal(torch.zeros(1, 3))


def test_activation_functions_of_extreme_numbers(kernels: ctypes.CDLL) -> None:
    x = torch.tensor([[value] for value in (0.0, -1e-6, 1e-30, -5.5, 9.0, -40.0, 1e20, -1e20, float("nan"))])
    assert StepLinear(kernels, 8, torch.ones(3, 1))(x)[-1].isnan().all()
    for activation, function in (("relu", functional.relu), ("gelu", functional.gelu)):
        layer = StepLinear(kernels, 32, torch.ones(3, 1), None, activation)
        expected = function(x).expand(-1, 3)
        torch.testing.assert_close(layer(x), expected, atol=1e-6, rtol=1e-6, equal_nan=True)


def test_not_a_number_is_not_rounded_to_a_number(kernels: ctypes.CDLL) -> None:
    layer = StepLinear(kernels, 16, torch.ones(3, 2))
    for bits in (0x7FC00000, 0x7FFFFFFF, -1, 0x7F800001):  # -1 is 0xffffffff
        nan = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
        assert layer(torch.stack([nan, torch.tensor(1.0)])[None]).isnan().all(), hex(bits)
    assert layer(torch.tensor([[float("inf"), 1.0]])).isposinf().all()
