"""A step's attention in compiled code: what torch computes, whatever the lengths, and where it cannot be had."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from handlers.core.device import Device
from handlers.engines.base import EngineUnavailable
from handlers.engines.native_seq2seq import NativeSeq2Seq
from handlers.engines.seq2seq import step_attention
from handlers.engines.seq2seq.prepare import prepare_summarizer
from handlers.engines.seq2seq.step_attention import LIBRARY, SIZES, StepAttention, build
from tests.unit.handlers.text.tiny import write_bart

BF16 = Device(torch.device("cpu"), torch.bfloat16, 1)
HEADS = 3


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    BF16.apply()


def attend(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], bias: Tensor | None) -> Tensor:
    """The same in float64, text by text."""
    results = []
    for text, length in enumerate(lengths):
        scores = q[text].double().transpose(0, 1) @ k[text, :, :length].double().transpose(1, 2)
        if bias is not None:
            scores += bias[0, :, :, :length].double()
        results.append((scores.softmax(-1) @ v[text, :, :length].double()).transpose(0, 1).flatten(1))
    return torch.cat(results)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    size=st.sampled_from(sorted(SIZES)),
    beams=st.integers(1, 9),
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=4),
    spread=st.sampled_from([0.1, 1.0, 30.0]),
    biased=st.booleans(),
    seed=st.integers(0, 99),
)
def test_it_is_attention(
    compiled: Path, size: int, beams: int, lengths: list[int], spread: float, biased: bool, seed: int
) -> None:
    drawn = torch.Generator().manual_seed(seed)
    texts, longest = len(lengths), max(lengths)
    # As they lie in the cache and in what queries, keys and values come from together: with gaps, filled with others.
    q = (
        torch.randn(texts * beams, 3, HEADS, size, generator=drawn)
        .bfloat16()[:, 0]
        .view(texts, beams, HEADS, size)
    )
    keys_values = torch.randn(2, texts + 1, HEADS, longest + 5, size, generator=drawn).bfloat16()
    k, v = (keys_values * spread)[:, :texts, :, :longest]
    bias = torch.randn(1, HEADS, 1, longest + 9, generator=drawn).bfloat16()[..., 9:] if biased else None
    compute = StepAttention(compiled, size)
    found = compute(q, k, v, torch.tensor(lengths), bias)
    largest = spread * 4
    torch.testing.assert_close(
        found.double(), attend(q, k, v, lengths, bias), atol=0.004 * largest, rtol=0.008
    )
    if set(lengths) == {longest}:
        assert torch.equal(compute(q, k, v, None, bias), found)
    # One text's result does not depend on the others.
    alone = compute(q[:1], k[:1], v[:1], torch.tensor(lengths[:1]), bias)
    assert torch.equal(alone, found[:beams])


def test_what_is_not_a_number_stays_it(compiled: Path) -> None:
    q, v = torch.ones(1, 1, 1, 32).bfloat16(), torch.ones(1, 1, 20, 32).bfloat16()
    for place in (0, 7, 17):
        k = torch.ones(1, 1, 20, 32).bfloat16()
        k[0, 0, place, 3] = float("nan")
        assert StepAttention(compiled, 32)(q, k, v, None).isnan().all()


def test_threads_give_the_same(compiled: Path) -> None:
    q, k = torch.randn(5, 4, 8, 64).bfloat16(), torch.randn(5, 8, 200, 64).bfloat16()
    compute, lengths = StepAttention(compiled, 64), torch.tensor([200, 3, 70, 16, 1])
    expected = compute(q, k, k, lengths)
    torch.set_num_threads(2)
    try:
        assert torch.equal(compute(q, k, k, lengths), expected)
    finally:
        torch.set_num_threads(1)


def test_it_is_linked_with_nothing_and_the_same_each_time(compiled: Path, tmp_path: Path) -> None:
    build(tmp_path)
    content = (tmp_path / LIBRARY).read_bytes()
    assert content == (compiled / LIBRARY).read_bytes()
    assert str(Path(__file__).parents[4]).encode() not in content
    libraries = subprocess.run(["ldd", tmp_path / LIBRARY], capture_output=True, text=True, check=True).stdout
    assert "libgomp" not in libraries


def test_the_engine_says_why_it_has_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_bart(tmp_path)
    engine = NativeSeq2Seq()
    engine.load(tmp_path, BF16)
    assert engine.describe()["attention"] == "torch"
    assert "no compiled attention: there is none for heads of 8" in caplog.text


def test_where_it_cannot_be_had(compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineUnavailable, match="the archive has none"):
        StepAttention(tmp_path, 64)
    (tmp_path / LIBRARY).write_bytes(b"nothing")
    with pytest.raises(EngineUnavailable, match="does not load"):
        StepAttention(tmp_path, 64)
    monkeypatch.setattr(step_attention, "cpu_flags", lambda: frozenset({"avx512f", "avx512bw"}))
    with pytest.raises(EngineUnavailable, match="lacks avx512cd, avx512dq, avx512vl"):
        StepAttention(compiled, 64)


def test_where_it_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reason() -> str:
        return str(prepare_summarizer(tmp_path / "prepared", "auto", "auto")["step_attention"]["none"])

    source = tmp_path / "step_attention.cpp"
    source.write_text("int main() { return nothing; }\n")
    monkeypatch.setattr(step_attention, "_SOURCE", source)
    monkeypatch.setattr(step_attention.platform, "machine", lambda: "x86_64")
    if shutil.which("g++"):
        assert re.match(r"g\+\+ failed: step_attention.cpp.*error.*nothing", reason())
    monkeypatch.setattr(step_attention.shutil, "which", lambda name: "/bin/false")
    assert reason() == "g++ failed: no message"
    monkeypatch.setattr(step_attention.shutil, "which", lambda name: None)
    assert reason() == "g++ is not installed"
    monkeypatch.setattr(step_attention.platform, "machine", lambda: "aarch64")
    assert reason() == "it is for x86-64 with Linux"
    assert [path.name for path in (tmp_path / "prepared").iterdir()] == ["prepared.json"]


@pytest.mark.parametrize(("engine", "precision"), [("torch", "auto"), ("auto", "fp32")])
def test_what_would_not_use_it_has_none(tmp_path: Path, engine: str, precision: str) -> None:
    facts = prepare_summarizer(tmp_path, engine, precision)
    assert facts == {"engine": engine} == json.loads((tmp_path / "prepared.json").read_text())
