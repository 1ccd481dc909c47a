"""Compiled attention: results for all lengths, and requirements."""

import ctypes
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from handlers.core.device import Device
from handlers.engines.base import PREPARED_DIR
from handlers.engines.seq2seq.decode_attention import HEAD_SIZES, DecodeAttention
from handlers.engines.seq2seq.native_seq2seq import NativeSeq2Seq
from tests.unit.handlers.text.tiny import write_bart

BF16 = Device(torch.device("cpu"), torch.bfloat16, 1)
HEADS = 3


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    BF16.apply()


def attend(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], bias: Tensor | None) -> Tensor:
    """Return the attention in float64, computed text by text."""
    results = []
    for text, length in enumerate(lengths):
        scores = q[text].double().transpose(0, 1) @ k[text, :, :length].double().transpose(1, 2)
        if bias is not None:
            scores += bias[0, :, :, :length].double()
        results.append((scores.softmax(-1) @ v[text, :, :length].double()).transpose(0, 1).flatten(1))
    return torch.cat(results)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    dtypes=st.sampled_from(
        [(torch.bfloat16, torch.bfloat16), (torch.float32, torch.float32), (torch.float32, torch.bfloat16)]
    ),
    size=st.sampled_from(sorted(HEAD_SIZES)),
    beams=st.integers(1, 9),
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=4),
    spread=st.sampled_from([0.1, 1.0, 30.0]),
    biased=st.booleans(),
    seed=st.integers(0, 99),
)
def test_result_equals_attention_in_float64(
    kernels: ctypes.CDLL,
    dtypes: tuple[torch.dtype, torch.dtype],
    size: int,
    beams: int,
    lengths: list[int],
    spread: float,
    biased: bool,
    seed: int,
) -> None:
    dtype, stored_dtype = dtypes
    generator = torch.Generator().manual_seed(seed)
    texts, longest = len(lengths), max(lengths)
    # As in the cache and in a joint projection, queries, keys and values have gaps that hold other numbers.
    q = (
        torch.randn(texts * beams, 3, HEADS, size, generator=generator)
        .to(dtype)[:, 0]
        .view(texts, beams, HEADS, size)
    )
    keys_values = torch.randn(2, texts + 1, HEADS, longest + 5, size, generator=generator).to(stored_dtype)
    k, v = (keys_values * spread)[:, :texts, :, :longest]
    bias = torch.randn(1, HEADS, 1, longest + 9, generator=generator).to(dtype)[..., 9:] if biased else None
    compute = DecodeAttention(kernels, size)
    result = compute(q, k, v, torch.tensor(lengths), bias)
    largest = spread * 4
    tolerance = {torch.bfloat16: (0.004, 0.008), torch.float32: (1e-5, 1e-4)}[dtype]
    torch.testing.assert_close(
        result.double(), attend(q, k, v, lengths, bias), atol=tolerance[0] * largest, rtol=tolerance[1]
    )
    if set(lengths) == {longest}:
        assert torch.equal(compute(q, k, v, None, bias), result)
    # The result of a text does not depend on the other texts.
    alone = compute(q[:1], k[:1], v[:1], torch.tensor(lengths[:1]), bias)
    assert torch.equal(alone, result[:beams])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=4), biased=st.booleans(), seed=st.integers(0, 99)
)
def test_texts_have_any_number_of_causal_queries(
    kernels: ctypes.CDLL, counts: list[int], biased: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    lengths = [count + int(torch.randint(0, 40, (), generator=generator)) for count in counts]
    longest, offsets = max(lengths), [sum(counts[:text]) for text in range(len(counts) + 1)]
    q = torch.randn(sum(counts), 1, HEADS, 32, generator=generator)
    k, v = torch.randn(2, len(counts), HEADS, longest, 32, generator=generator)
    bias = torch.randn(1, HEADS, 1, longest, generator=generator) if biased else None
    compute = DecodeAttention(kernels, 32)
    arguments = (q, k, v, torch.tensor(lengths))
    causal = compute(*arguments, bias, offsets=torch.tensor(offsets), is_causal=True)
    full = compute(*arguments, offsets=torch.tensor(offsets))
    for text, (count, length) in enumerate(zip(counts, lengths, strict=True)):
        for query in range(count):
            row, visible = offsets[text] + query, length - count + 1 + query
            keys_values = k[text : text + 1], v[text : text + 1]
            end = None if bias is None else bias[..., longest - visible :]
            torch.testing.assert_close(
                causal[row : row + 1].double(),
                attend(q[row : row + 1], *keys_values, [visible], end),
                atol=1e-5,
                rtol=1e-4,
            )
            torch.testing.assert_close(
                full[row : row + 1].double(),
                attend(q[row : row + 1], *keys_values, [length], None),
                atol=1e-5,
                rtol=1e-4,
            )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    dtype=st.sampled_from([torch.bfloat16, torch.float32]),
    size=st.sampled_from(sorted(HEAD_SIZES)),
    beams=st.integers(1, 9),
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_int8_keys_and_values_are_multiplied_by_their_scales(
    kernels: ctypes.CDLL, dtype: torch.dtype, size: int, beams: int, lengths: list[int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    texts, longest = len(lengths), max(lengths)
    q = torch.randn(texts, beams, HEADS, size, generator=generator).to(dtype)
    magnitudes = 2.0 ** torch.randint(-9, 4, (2, texts, HEADS, longest, 1), generator=generator)
    compute = DecodeAttention(kernels, size, int8_sources=True)
    exact = (torch.randn(2, texts, HEADS, longest, size, generator=generator) * magnitudes).to(dtype)
    quantized, scales = compute.quantize(exact)
    restored = quantized * scales[..., None]
    assert ((restored - exact).abs() <= exact.abs().amax(-1, keepdim=True) / 253).all()
    padded = torch.full((2, texts + 1, HEADS, longest), float("nan"))  # as after a text was removed
    padded[:, :texts] = scales
    result = compute(q, *quantized, torch.tensor(lengths), scales=padded[:, :texts])
    tolerance = {torch.bfloat16: 0.008, torch.float32: 1e-4}[dtype]
    torch.testing.assert_close(
        result.double(),
        attend(q, *restored, lengths, None),
        atol=tolerance * float(restored.abs().max()),
        rtol=0,
    )


def test_nan_is_propagated(kernels: ctypes.CDLL) -> None:
    q, v = torch.ones(1, 1, 1, 32).bfloat16(), torch.ones(1, 1, 20, 32).bfloat16()
    for position in (0, 7, 17):
        k = torch.ones(1, 1, 20, 32).bfloat16()
        k[0, 0, position, 3] = float("nan")
        assert DecodeAttention(kernels, 32)(q, k, v, None).isnan().all()


def test_fp16_is_not_read_as_bf16(kernels: ctypes.CDLL) -> None:
    q, k, v = (torch.ones(1, 1, 1, 32, dtype=torch.float16) for _ in range(3))
    with pytest.raises(KeyError):
        DecodeAttention(kernels, 32)(q, k, v, None)


def test_result_does_not_depend_on_threads(kernels: ctypes.CDLL) -> None:
    q, k = torch.randn(5, 4, 8, 64).bfloat16(), torch.randn(5, 8, 200, 64).bfloat16()
    compute, lengths = DecodeAttention(kernels, 64), torch.tensor([200, 3, 70, 16, 1])
    expected = compute(q, k, k, lengths)
    torch.set_num_threads(2)
    try:
        assert torch.equal(compute(q, k, k, lengths), expected)
    finally:
        torch.set_num_threads(1)


def test_engine_logs_the_reason_for_missing_compiled_attention(
    compiled_step: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_bart(tmp_path)
    (tmp_path / PREPARED_DIR).symlink_to(compiled_step)
    engine = NativeSeq2Seq()
    engine.load(tmp_path, BF16)
    assert engine.describe()["attention"] == "torch"
    assert "no compiled attention: head size 8 is not supported (32, 64 or 128)" in caplog.text
