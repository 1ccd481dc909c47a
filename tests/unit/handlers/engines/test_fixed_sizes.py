"""Padding and staging of recorded GPU work, with a stand-in for the GPU; the work itself where there is one."""

import pytest
import torch

from handlers.core.device import Device
from handlers.engines import torch_classifier
from handlers.engines.fixed_sizes import FixedSizes, sizes_up_to, stage
from handlers.engines.torch_classifier import TorchClassifier
from tests.unit.handlers.engines.conftest import FP32, SMALL, levels


class FakeRun:
    """Doubles its rows, in memory of its own; `ran` has the size of each run."""

    def __init__(self, size, ran):
        self.inputs, self.staging, self.outputs = (torch.zeros(size, 3) for _ in range(3))
        self.ran = ran

    def run(self, batch):
        stage(batch, self.staging, self.inputs)
        self.outputs.copy_(self.inputs * 2)
        self.ran.append(len(self.inputs))
        return self.outputs[: len(batch)]


def test_sizes_double_up_to_the_largest():
    assert sizes_up_to(1) == (1,)
    assert sizes_up_to(2) == (1, 2)
    assert sizes_up_to(32) == (1, 2, 4, 8, 16, 32)
    assert sizes_up_to(24) == (1, 2, 4, 8, 16, 24)


def test_a_batch_runs_in_the_smallest_size_that_holds_it():
    made, ran = [], []

    def make(size):
        made.append(size)
        return FakeRun(size, ran)

    batches = FixedSizes(sizes_up_to(6), make)
    assert made == [6, 4, 2, 1]  # the largest first, as the others use its memory
    assert batches.sizes == [1, 2, 4, 6]
    for count, size in ((1, 1), (2, 2), (3, 4), (4, 4), (5, 6), (6, 6)):
        rows = torch.rand(count, 3)
        answer = batches(rows)
        assert ran[-1] == size
        assert torch.equal(answer, rows * 2)
    with pytest.raises(ValueError, match="a batch of 7; at most 6 fit"):
        batches(torch.rand(7, 3))


def test_an_answer_outlives_the_next_batch():
    batches = FixedSizes((4,), lambda size: FakeRun(size, []))
    first = batches(torch.ones(2, 3))
    batches(torch.zeros(4, 3))
    assert torch.equal(first, torch.full((2, 3), 2.0))


def test_a_batch_on_the_device_is_not_staged():
    rows, staging, inputs = torch.rand(2, 3), torch.zeros(4, 3), torch.zeros(4, 3)
    stage(rows, staging, inputs)
    assert torch.equal(inputs[:2], rows)
    assert not inputs[2:].any()
    assert not staging.any()


def test_a_batch_on_the_host_is_staged():
    rows, staging = torch.rand(2, 3), torch.zeros(4, 3)
    stage(rows, staging, torch.zeros(4, 3, device="meta"))  # any device but the batch's
    assert torch.equal(staging[:2], rows)
    assert not staging[2:].any()


def test_a_network_that_cannot_be_recorded_runs_eagerly(small, monkeypatch, caplog):
    """As on a GPU, whose memory or whose network does not allow it."""

    class Gpu:
        type = "cuda"

    def fails(self):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(TorchClassifier, "_record", fails)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *args, **kwargs: self)
    monkeypatch.setattr(torch_classifier.TorchClassifier, "_eager", lambda self, batch: self._compute(batch))
    engine = TorchClassifier(SMALL, 4)
    engine.load(small, Device(Gpu(), torch.float32, 1))
    assert engine.run(levels(SMALL, 2)).shape == (2, 7)
    assert engine.describe()["cuda_graphs"] == (
        "none: RuntimeError: operation not permitted when stream is capturing"
    )
    assert "computing eagerly" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_recorded_runs_answer_as_the_cpu(small):
    on_gpu, on_cpu = TorchClassifier(SMALL, 6), TorchClassifier(SMALL, 6)
    on_gpu.load(small, Device(torch.device("cuda:0"), torch.float32, 1))
    on_cpu.load(small, FP32)
    assert on_gpu.describe()["cuda_graphs"] == [1, 2, 4, 6]
    for count in range(1, 7):
        batch = levels(SMALL, count)
        for there in (batch, batch.to("cuda:0")):
            assert torch.allclose(on_gpu.run(there), on_cpu.run(batch), rtol=1e-2, atol=1e-2)
