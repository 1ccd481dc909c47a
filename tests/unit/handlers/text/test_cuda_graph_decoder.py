"""Recorded steps: the same tokens as steps that are not, with a tracer in place of a GPU's graphs.

Like a graph, what it makes of a step knows the addresses and shapes of the first time, and nothing of Python.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from transformers import BartForConditionalGeneration, GenerationConfig, T5ForConditionalGeneration

from handlers.core.device import Device
from handlers.engines import native_seq2seq
from handlers.engines.cuda_graph import Work
from handlers.engines.native_seq2seq import NativeSeq2Seq
from handlers.engines.seq2seq.bart import Bart
from handlers.engines.seq2seq.beams import beam_search
from handlers.engines.seq2seq.cache import MAX_STEPS, Cache
from handlers.engines.seq2seq.cuda_graph_decoder import CudaGraphDecoder
from handlers.engines.seq2seq.greedy import greedy
from handlers.engines.seq2seq.linear import Linear
from handlers.engines.seq2seq.logits_processors import LogitsProcessors
from handlers.engines.seq2seq.network import Network, prefill
from handlers.engines.seq2seq.t5 import T5
from handlers.text.batching import MAX_ROWS
from handlers.text.generation import GeneratedTokens, GenerationBatch, GenerationParameters
from tests.unit.handlers.text.tiny import write_bart, write_t5

CPU = torch.device("cpu")
PLACES = 1024


class Tracer:
    """A `Record`; `count` is how often it recorded."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, work: Work) -> Work:
        self.count += 1
        traced: Work = make_fx(work)()
        return traced


def network(name: str, folder: Any) -> tuple[Network, LogitsProcessors]:
    write, load, ours = {
        "t5": (write_t5, T5ForConditionalGeneration, T5),
        "bart": (write_bart, BartForConditionalGeneration, Bart),
    }[name]
    model = load.from_pretrained(write(folder)).eval()
    with torch.no_grad():
        return ours(model, Linear), LogitsProcessors(GenerationConfig.from_pretrained(folder), 400, CPU)


@pytest.fixture(scope="module", params=["t5", "bart"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.set_num_threads(1)
    plain, rules = network(request.param, tmp_path_factory.mktemp("model"))
    tracer = Tracer()
    return plain, rules, CudaGraphDecoder(plain, tracer, PLACES), tracer


def run(
    steps: Network,
    rules: LogitsProcessors,
    new_cache: Callable[..., Cache],
    texts: list[Any],
    requests: list[Any],
) -> GeneratedTokens:
    """As the engine does."""
    with torch.no_grad():
        cache = new_cache(
            [len(text) for text in texts],
            requests[0].num_beams,
            max(each.max_new_tokens for each in requests),
        )
        prefill(steps, cache, texts)
        return (greedy if cache.beams == 1 else beam_search)(steps, cache, rules, requests)


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    lengths=st.lists(st.integers(1, 46), min_size=1, max_size=4),
    beams=st.sampled_from([1, 1, 2, 3]),
    longest=st.lists(st.integers(1, 40), min_size=4, max_size=4),
    ngram=st.sampled_from([0, 2]),
    seed=st.integers(0, 99),
)
@pytest.mark.full
def test_tokens_are_those_of_steps_that_are_not_recorded(
    pair: Any, lengths: list[int], beams: int, longest: list[int], ngram: int, seed: int
) -> None:
    """One after the other on the same memory, which is left as it was."""
    plain, rules, recorded, _ = pair
    drawn = torch.Generator().manual_seed(seed)
    texts = [torch.randint(3, 100, (length,), generator=drawn) for length in lengths]
    requests = [
        GenerationParameters(most, num_beams=beams, no_repeat_ngram_size=ngram)
        for most in longest[: len(texts)]
    ]
    expected = run(plain, rules, lambda *sizes: Cache(plain.shape, *sizes), texts, requests)
    assert run(recorded, rules, recorded.cache, texts, requests) == expected


@pytest.mark.full
def test_a_shape_is_recorded_once(pair: Any) -> None:
    plain, rules, _, _ = pair
    tracer = Tracer()
    recorded = CudaGraphDecoder(plain, tracer, PLACES)
    # No text ends before its time, and one after the other: steps of 4, 2 and 1 texts, of 32 or 64 tokens.
    requests = [GenerationParameters(most, most) for most in (2, 4, 6, 8)]
    for length, texts, count in ((30, 4, 3), (31, 4, 3), (20, 2, 3), (33, 4, 6), (25, 3, 6)):
        run(recorded, rules, recorded.cache, [torch.arange(3, 3 + length)] * texts, requests[:texts])
        assert tracer.count == count
    recorded.forget()
    run(recorded, rules, recorded.cache, [torch.arange(3, 9)], requests[:1])
    assert tracer.count == 7


@pytest.mark.full
def test_no_more_than_some_are_kept(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, rules, _, _ = pair
    monkeypatch.setattr("handlers.engines.seq2seq.cuda_graph_decoder._MAX_GRAPHS", 2)
    tracer = Tracer()
    recorded = CudaGraphDecoder(plain, tracer, PLACES)
    for beams, count in ((1, 1), (2, 2), (1, 2), (3, 3), (1, 3), (2, 4)):
        run(recorded, rules, recorded.cache, [torch.arange(3, 9)], [GenerationParameters(3, num_beams=beams)])
        assert tracer.count == count


@pytest.mark.parametrize(
    ("lengths", "beams", "capacity"), [([600], 1, 1000), ([9] * 17, 1, 9), ([9] * 5, 5, 33)]
)
def test_what_is_too_large_is_not_recorded(pair: Any, lengths: list[int], beams: int, capacity: int) -> None:
    _, _, recorded, _ = pair
    assert recorded.cache(lengths, beams, capacity) is None
    assert recorded.cache([9] * 16, 1, 9) is not None


def test_steps_and_rows_are_bounded_too(pair: Any) -> None:
    recorded = CudaGraphDecoder(pair[0], Tracer(), 2**16)
    assert recorded.cache([40], 1, MAX_STEPS) is not None
    assert recorded.cache([40], 1, MAX_STEPS + 1) is None
    assert recorded.cache([9] * 2, MAX_ROWS // 2, 1) is not None
    assert recorded.cache([9] * 2, MAX_ROWS // 2 + 1, 1) is None


def test_what_an_earlier_batch_left_does_not_count(pair: Any) -> None:
    plain, rules, _, _ = pair
    recorded = CudaGraphDecoder(plain, Tracer(), PLACES)
    texts = [torch.arange(3, 20), torch.arange(40, 45), torch.arange(7, 9)]
    requests = [GenerationParameters(9)] * 3
    expected = run(recorded, rules, recorded.cache, texts, requests)
    for memory in (recorded._keys_values, recorded._mask, recorded._logits):
        memory.fill_(float("nan"))
    assert run(recorded, rules, recorded.cache, texts, requests) == expected


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (
            RuntimeError("not permitted when stream is capturing"),
            "RuntimeError: not permitted when stream is capturing",
        ),
        (torch.OutOfMemoryError("no"), None),
    ],
)
def test_what_cannot_be_recorded_is_computed(
    pair: Any, error: Exception, problem: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    plain, rules, _, _ = pair
    asked: list[Work] = []

    def record(work: Work) -> Work:
        asked.append(work)
        raise error

    recorded = CudaGraphDecoder(plain, record, PLACES)
    texts, requests = [torch.arange(3, 20), torch.arange(40, 45)], [GenerationParameters(9, 9)] * 2
    expected = run(plain, rules, lambda *sizes: Cache(plain.shape, *sizes), texts, requests)
    for tries in (1, 1 if problem else 2):  # once a batch where memory may be there the next time
        assert run(recorded, rules, recorded.cache, texts, requests) == expected
        assert len(asked) == tries
    assert recorded.problem == problem
    assert "computing eagerly" in caplog.text


def test_t5s_bias_is_the_same_from_everywhere(tmp_path: Any) -> None:
    steps, _ = network("t5", tmp_path)
    assert isinstance(steps, T5)
    bias = steps._decoder_bias
    for position in (0, 40, MAX_STEPS - 1, MAX_STEPS, MAX_STEPS + 9):
        expected = bias._of(torch.arange(-position, 1)[None])
        assert torch.equal(bias.back_from(position), expected)
        if position < MAX_STEPS:
            found = bias.back_from_one_of(torch.tensor([position]), torch.zeros(1, 1, 1, MAX_STEPS))
            assert torch.equal(found[..., : position + 1], expected)


def test_the_engine_records_what_it_can(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bart(tmp_path)
    engine = NativeSeq2Seq()
    engine.load(tmp_path, Device(CPU, torch.float32, 1))
    assert "cuda_graphs" not in engine.describe()
    batch = GenerationBatch(
        [(5, 6, 7), tuple(range(3, 40))], [GenerationParameters(12), GenerationParameters(5)]
    )
    large = GenerationBatch([(5, 6)] * 17, [GenerationParameters(4)] * 17)
    expected, expected_of_large = engine.run(batch), engine.run(large)
    steps: list[Tensor] = []

    class Graphs:
        def __init__(self, device: torch.device) -> None:
            pass

        def replaying(self, work: Work) -> Work:
            return lambda: [steps.append(work()), steps[-1]][1]  # type: ignore[func-returns-value]

    monkeypatch.setattr(native_seq2seq, "CudaGraphs", Graphs)
    engine._max_batch_tokens = PLACES // 2
    engine._record()
    assert engine.describe()["cuda_graphs"] == "one for each shape of a step"
    assert engine.run(batch) == expected
    taken = len(steps)
    assert taken == max(len(tokens) for tokens in expected)
    assert engine.run(large) == expected_of_large
    assert len(steps) == taken

    recorded = engine._graph_decoder
    assert recorded is not None
    with monkeypatch.context() as patched:
        patched.setattr(native_seq2seq, "prefill", lambda *_: raised(torch.OutOfMemoryError("no")))
        assert recorded._runs
        with pytest.raises(torch.OutOfMemoryError):
            engine.run(batch)
    assert not recorded._runs
    recorded.problem = "RuntimeError: no"
    assert engine.run(batch) == expected
    assert (len(steps), engine._graph_decoder) == (taken, None)
    assert engine.describe()["cuda_graphs"] == "none: RuntimeError: no"

    monkeypatch.setattr(native_seq2seq, "CudaGraphDecoder", lambda *_: raised(torch.OutOfMemoryError("no")))
    engine._record()
    assert engine.describe()["cuda_graphs"] == "none: no memory for their caches"
    assert engine.run(batch) == expected


def raised(error: Exception) -> None:
    raise error


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("write", [write_t5, write_bart])
def test_a_gpu_generates_as_the_cpu(write: Any, tmp_path: Any) -> None:
    write(tmp_path)
    batch = GenerationBatch(
        [(5, 6, 7), tuple(range(3, 40))], [GenerationParameters(12), GenerationParameters(5)]
    )
    found = []
    for device in (CPU, torch.device("cuda:0")):
        engine = NativeSeq2Seq()
        engine.load(tmp_path, Device(device, torch.float32, 1))
        found.append([engine.run(batch), engine.run(batch)])
    assert found[0] == found[1]
    assert engine.describe()["cuda_graphs"] == "one for each shape of a step"
