"""Padding of batches to fixed sizes and copies to the device, with a stub for the GPU."""

import pytest
import torch

from handlers.core.device import Device
from handlers.engines.image import torch_classifier
from handlers.engines.image.fixed_batch_runner import FixedBatchRunner, copy_to_device, sizes_up_to
from handlers.engines.image.torch_classifier import TorchClassifier
from tests.unit.handlers.engines.image.conftest import FP32, SMALL, levels


class DoublingRun:
    """A `FixedSizeRun` that doubles its rows and appends its size to `run_sizes`."""

    def __init__(self, size, run_sizes):
        self.inputs, self.staging, self.outputs = (torch.zeros(size, 3) for _ in range(3))
        self.run_sizes = run_sizes

    def run(self, batch):
        copy_to_device(batch, self.staging, self.inputs)
        self.outputs.copy_(self.inputs * 2)
        self.run_sizes.append(len(self.inputs))
        return self.outputs[: len(batch)]


def test_sizes_double_up_to_the_largest():
    assert sizes_up_to(1) == (1,)
    assert sizes_up_to(2) == (1, 2)
    assert sizes_up_to(32) == (1, 2, 4, 8, 16, 32)
    assert sizes_up_to(24) == (1, 2, 4, 8, 16, 24)


def test_batch_runs_in_the_smallest_size_that_holds_it():
    created, run_sizes = [], []

    def create(size):
        created.append(size)
        return DoublingRun(size, run_sizes)

    runner = FixedBatchRunner(sizes_up_to(6), create)
    assert created == [6, 4, 2, 1]  # the largest first, because the others use its memory
    assert runner.sizes == [1, 2, 4, 6]
    for count, size in ((1, 1), (2, 2), (3, 4), (4, 4), (5, 6), (6, 6)):
        rows = torch.rand(count, 3)
        answer = runner(rows)
        assert run_sizes[-1] == size
        assert torch.equal(answer, rows * 2)
    with pytest.raises(ValueError, match="a batch of 7 rows exceeds the maximum of 6"):
        runner(torch.rand(7, 3))


def test_result_is_not_overwritten_by_the_next_batch():
    runner = FixedBatchRunner((4,), lambda size: DoublingRun(size, []))
    first = runner(torch.ones(2, 3))
    runner(torch.zeros(4, 3))
    assert torch.equal(first, torch.full((2, 3), 2.0))


def test_batch_on_the_device_is_copied_directly():
    rows, staging, inputs = torch.rand(2, 3), torch.zeros(4, 3), torch.zeros(4, 3)
    copy_to_device(rows, staging, inputs)
    assert torch.equal(inputs[:2], rows)
    assert not inputs[2:].any()
    assert not staging.any()


def test_batch_on_the_host_is_copied_through_pinned_memory():
    rows, staging = torch.rand(2, 3), torch.zeros(4, 3)
    copy_to_device(rows, staging, torch.zeros(4, 3, device="meta"))  # any device but the batch's
    assert torch.equal(staging[:2], rows)
    assert not staging[2:].any()


class Gpu:
    """A `torch.device` that stands for the CPU."""

    type = "cuda"


def test_algorithms_are_measured_only_for_captured_shapes(small, monkeypatch):
    captured = []

    class Capture:
        def __init__(self, network, batch, graphs):
            captured.append((len(batch), torch.backends.cudnn.benchmark))

        def run(self, batch):
            assert not torch.backends.cudnn.benchmark
            return batch

    monkeypatch.setattr(torch_classifier, "CudaGraphs", lambda device: None)
    monkeypatch.setattr(torch_classifier, "CudaGraphRun", Capture)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *args, **kwargs: self)
    engine = TorchClassifier(SMALL, 4)
    engine.load(small, Device(Gpu(), torch.float32, 1))
    assert captured == [(4, True), (2, True), (1, True)]
    engine.run(levels(SMALL, 2))


def test_batch_norms_are_folded_on_a_gpu_only(small, monkeypatch):
    """Count the batch norms of the network that computes the logits."""

    def count(device):
        engine = TorchClassifier(SMALL, 4)
        engine.load(small, device)
        modules = list(engine._compute.modules())
        assert any(isinstance(module, torch.nn.Conv2d) for module in modules)
        return sum(isinstance(module, torch.nn.BatchNorm2d) for module in modules)

    on_cpu = count(FP32)
    monkeypatch.setattr(TorchClassifier, "_capture", lambda self: None)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *args, **kwargs: self)
    assert (on_cpu > 0, count(Device(Gpu(), torch.float32, 1))) == (True, 0)


def test_network_that_cannot_be_captured_runs_eagerly(small, monkeypatch, caplog):
    def fails(self):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(TorchClassifier, "_capture", fails)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *args, **kwargs: self)
    monkeypatch.setattr(
        torch_classifier.TorchClassifier, "_run_eagerly", lambda self, batch: self._compute(batch)
    )
    engine = TorchClassifier(SMALL, 4)
    engine.load(small, Device(Gpu(), torch.float32, 1))
    assert engine.run(levels(SMALL, 2)).shape == (2, 7)
    assert engine.describe()["cuda_graphs"] == (
        "none: RuntimeError: operation not permitted when stream is capturing"
    )
    assert "computing eagerly" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_captured_runs_equal_those_of_the_cpu(small):
    on_gpu, on_cpu = TorchClassifier(SMALL, 6), TorchClassifier(SMALL, 6)
    on_gpu.load(small, Device(torch.device("cuda:0"), torch.float32, 1))
    on_cpu.load(small, FP32)
    assert on_gpu.describe()["cuda_graphs"] == [1, 2, 4, 6]
    for count in range(1, 7):
        batch = levels(SMALL, count)
        for placed_batch in (batch, batch.to("cuda:0")):
            assert torch.allclose(on_gpu.run(placed_batch), on_cpu.run(batch), rtol=1e-2, atol=1e-2)
