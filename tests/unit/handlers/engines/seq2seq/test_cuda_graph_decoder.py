"""Captured decoder steps, with a tracer as a stub for CUDA graphs.

Like a graph, a traced step is bound to the addresses and shapes of its first run and executes no Python code.
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
from handlers.engines.cuda_graph import GraphFunction
from handlers.engines.seq2seq import native_seq2seq
from handlers.engines.seq2seq.bart import Bart
from handlers.engines.seq2seq.beam_search import run_beam_search
from handlers.engines.seq2seq.cache import MAX_DECODE_STEPS, EncoderDecoderCache
from handlers.engines.seq2seq.cuda_graph_decoder import CudaGraphDecoder
from handlers.engines.seq2seq.encoder_decoder import EncoderDecoder, encode_into_cache
from handlers.engines.seq2seq.generation_types import (
    MAX_BATCH_BEAMS,
    GeneratedTokens,
    GenerationBatch,
    GenerationParameters,
)
from handlers.engines.seq2seq.greedy_search import run_greedy_search
from handlers.engines.seq2seq.linear import Linear
from handlers.engines.seq2seq.logits_processors import LogitsProcessors
from handlers.engines.seq2seq.native_seq2seq import NativeSeq2Seq
from handlers.engines.seq2seq.t5 import T5
from tests.unit.handlers.text.tiny import write_bart, write_t5

CPU = torch.device("cpu")
POOL_SIZE = 1024


class Tracer:
    """A `CaptureFunction` that counts its calls."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, work: GraphFunction) -> GraphFunction:
        self.count += 1
        traced: GraphFunction = make_fx(work)()
        return traced


class Counter:
    """A `CaptureFunction` that only counts its calls: tracing takes long."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, work: GraphFunction) -> GraphFunction:
        self.count += 1
        return work


def network(name: str, folder: Any) -> tuple[EncoderDecoder, LogitsProcessors]:
    write, load, create = {
        "t5": (write_t5, T5ForConditionalGeneration, T5),
        "bart": (write_bart, BartForConditionalGeneration, Bart),
    }[name]
    model = load.from_pretrained(write(folder, layers=2)).eval()
    with torch.no_grad():
        return create(model, Linear), LogitsProcessors(GenerationConfig.from_pretrained(folder), 400, CPU)


@pytest.fixture(scope="module", params=["t5", "bart"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.set_num_threads(1)
    eager, processors = network(request.param, tmp_path_factory.mktemp("model"))
    tracer = Tracer()
    return eager, processors, CudaGraphDecoder(eager, tracer, POOL_SIZE), tracer


def run(
    steps: EncoderDecoder,
    processors: LogitsProcessors,
    create_cache: Callable[..., EncoderDecoderCache],
    texts: list[Any],
    requests: list[Any],
) -> GeneratedTokens:
    """Generate as the engine does."""
    with torch.no_grad():
        cache = create_cache(
            [len(text) for text in texts],
            requests[0].num_beams,
            max(request.max_new_tokens for request in requests),
        )
        encode_into_cache(steps, cache, texts)
        return (run_greedy_search if cache.num_beams == 1 else run_beam_search)(
            steps, cache, processors, requests
        )


@settings(
    max_examples=settings.default.max_examples // 8,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    lengths=st.lists(st.integers(1, 46), min_size=1, max_size=4),
    beams=st.sampled_from([1, 1, 2, 3]),
    longest=st.lists(st.integers(1, 16), min_size=4, max_size=4),
    ngram=st.sampled_from([0, 2]),
    seed=st.integers(0, 99),
)
@pytest.mark.full
def test_captured_steps_generate_the_tokens_of_eager_steps(
    pair: Any, lengths: list[int], beams: int, longest: list[int], ngram: int, seed: int
) -> None:
    """The batches run one after the other in the same memory, which is not cleared in between."""
    eager, processors, decoder, _ = pair
    generator = torch.Generator().manual_seed(seed)
    texts = [torch.randint(3, 100, (length,), generator=generator) for length in lengths]
    requests = [
        GenerationParameters(max_new_tokens, num_beams=beams, no_repeat_ngram_size=ngram)
        for max_new_tokens in longest[: len(texts)]
    ]
    expected = run(
        eager, processors, lambda *sizes: EncoderDecoderCache(eager.shape, *sizes), texts, requests
    )
    assert run(decoder, processors, decoder.create_cache, texts, requests) == expected


@pytest.mark.full
def test_each_shape_is_captured_once(pair: Any) -> None:
    eager, processors, _, _ = pair
    counter = Counter()
    decoder = CudaGraphDecoder(eager, counter, POOL_SIZE)
    # The texts end one after the other at their maximum: steps of 4, 2 and 1 texts, with 32 or 64 tokens.
    requests = [GenerationParameters(max_new_tokens, max_new_tokens) for max_new_tokens in (2, 4, 6, 8)]
    for length, texts, count in ((30, 4, 3), (31, 4, 3), (20, 2, 3), (33, 4, 6), (25, 3, 6)):
        run(
            decoder, processors, decoder.create_cache, [torch.arange(3, 3 + length)] * texts, requests[:texts]
        )
        assert counter.count == count
    decoder.clear()
    run(decoder, processors, decoder.create_cache, [torch.arange(3, 9)], requests[:1])
    assert counter.count == 7


@pytest.mark.full
def test_least_recently_used_graph_is_dropped(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    eager, processors, _, _ = pair
    monkeypatch.setattr("handlers.engines.seq2seq.cuda_graph_decoder._MAX_GRAPHS", 2)
    counter = Counter()
    decoder = CudaGraphDecoder(eager, counter, POOL_SIZE)
    for beams, count in ((1, 1), (2, 2), (1, 2), (3, 3), (1, 3), (2, 4)):
        run(
            decoder,
            processors,
            decoder.create_cache,
            [torch.arange(3, 9)],
            [GenerationParameters(3, num_beams=beams)],
        )
        assert counter.count == count


@pytest.mark.parametrize(
    ("lengths", "beams", "capacity"), [([600], 1, 1000), ([9] * 17, 1, 9), ([9] * 5, 5, 33)]
)
def test_too_large_batch_is_not_captured(pair: Any, lengths: list[int], beams: int, capacity: int) -> None:
    _, _, decoder, _ = pair
    assert decoder.create_cache(lengths, beams, capacity) is None
    assert decoder.create_cache([9] * 16, 1, 9) is not None


def test_number_of_steps_and_rows_is_bounded(pair: Any) -> None:
    decoder = CudaGraphDecoder(pair[0], Tracer(), 2**16)
    assert decoder.create_cache([40], 1, MAX_DECODE_STEPS) is not None
    assert decoder.create_cache([40], 1, MAX_DECODE_STEPS + 1) is None
    assert decoder.create_cache([9] * 2, MAX_BATCH_BEAMS // 2, 1) is not None
    assert decoder.create_cache([9] * 2, MAX_BATCH_BEAMS // 2 + 1, 1) is None


def test_values_of_an_earlier_batch_have_no_effect(pair: Any) -> None:
    eager, processors, _, _ = pair
    decoder = CudaGraphDecoder(eager, Tracer(), POOL_SIZE)
    texts = [torch.arange(3, 20), torch.arange(40, 45), torch.arange(7, 9)]
    requests = [GenerationParameters(9)] * 3
    expected = run(decoder, processors, decoder.create_cache, texts, requests)
    for memory in (decoder._kv_pool, decoder._encoder_attention_mask, decoder._logits):
        memory.fill_(float("nan"))
    assert run(decoder, processors, decoder.create_cache, texts, requests) == expected


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RuntimeError("not permitted when stream is capturing"),
            "RuntimeError: not permitted when stream is capturing",
        ),
        (torch.OutOfMemoryError("no"), None),
    ],
)
def test_failed_capture_falls_back_to_eager_steps(
    pair: Any, error: Exception, message: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    eager, processors, _, _ = pair
    attempts: list[GraphFunction] = []

    def capture(work: GraphFunction) -> GraphFunction:
        attempts.append(work)
        raise error

    decoder = CudaGraphDecoder(eager, capture, POOL_SIZE)
    texts, requests = [torch.arange(3, 20), torch.arange(40, 45)], [GenerationParameters(9, 9)] * 2
    expected = run(
        eager, processors, lambda *sizes: EncoderDecoderCache(eager.shape, *sizes), texts, requests
    )
    for tries in (1, 1 if message else 2):  # out of memory is tried again with each batch
        assert run(decoder, processors, decoder.create_cache, texts, requests) == expected
        assert len(attempts) == tries
    assert decoder.error == message
    assert "computing eagerly" in caplog.text


def test_position_bias_is_equal_for_eager_and_captured_steps(tmp_path: Any) -> None:
    steps, _ = network("t5", tmp_path)
    assert isinstance(steps, T5)
    bias = steps._decoder_bias
    for position in (0, 40, MAX_DECODE_STEPS - 1, MAX_DECODE_STEPS, MAX_DECODE_STEPS + 9):
        expected = bias._lookup(torch.arange(-position, 1)[None])
        assert torch.equal(bias.for_step(position), expected)
        if position < MAX_DECODE_STEPS:
            captured = bias.for_positions(torch.tensor([[position]]), torch.zeros(1, 1, 1, MAX_DECODE_STEPS))
            assert torch.equal(captured[..., : position + 1], expected)


def test_engine_captures_batches_that_fit_and_runs_others_eagerly(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
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

        def capture_replay(self, work: GraphFunction) -> GraphFunction:
            return lambda: [steps.append(work()), steps[-1]][1]  # type: ignore[func-returns-value]

    monkeypatch.setattr(native_seq2seq, "CudaGraphs", Graphs)
    engine._max_batch_tokens = POOL_SIZE // 2
    engine._create_graph_decoder()
    assert engine.describe()["cuda_graphs"] == "one for each shape of a step"
    assert engine.captures_steps
    assert engine.run(batch) == expected
    taken = len(steps)
    assert taken == max(len(tokens) for tokens in expected)
    assert engine.run(large) == expected_of_large
    assert len(steps) == taken

    decoder = engine._graph_decoder
    assert decoder is not None
    with monkeypatch.context() as patched:
        patched.setattr(native_seq2seq, "encode_into_cache", lambda *_: raised(torch.OutOfMemoryError("no")))
        assert decoder._replays
        with pytest.raises(torch.OutOfMemoryError):
            engine.run(batch)
    assert not decoder._replays
    decoder.error = "RuntimeError: no"
    assert engine.run(batch) == expected
    assert (len(steps), engine._graph_decoder) == (taken, None)
    assert engine.describe()["cuda_graphs"] == "none: RuntimeError: no"
    assert not engine.captures_steps

    monkeypatch.setattr(native_seq2seq, "CudaGraphDecoder", lambda *_: raised(torch.OutOfMemoryError("no")))
    engine._create_graph_decoder()
    assert engine.describe()["cuda_graphs"] == "none: no memory for their caches"
    assert engine.run(batch) == expected


def raised(error: Exception) -> None:
    raise error


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("write", [write_t5, write_bart])
def test_gpu_generates_the_tokens_of_the_cpu(write: Any, tmp_path: Any) -> None:
    write(tmp_path)
    batch = GenerationBatch(
        [(5, 6, 7), tuple(range(3, 40))], [GenerationParameters(12), GenerationParameters(5)]
    )
    results = []
    for device in (CPU, torch.device("cuda:0")):
        engine = NativeSeq2Seq()
        engine.load(tmp_path, Device(device, torch.float32, 1))
        results.append([engine.run(batch), engine.run(batch)])
    assert results[0] == results[1]
    assert engine.describe()["cuda_graphs"] == "one for each shape of a step"
