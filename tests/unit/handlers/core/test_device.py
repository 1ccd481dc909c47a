"""Tests of choosing the device, precision and threads, on a machine without a GPU."""

import logging
import os
import subprocess
import sys

import pytest
import torch

from handlers.core import device
from handlers.core.config import HandlerConfig
from handlers.core.device import NICE_VARIABLE, Device, limit_kernel_caches, usable_cores
from handlers.core.exception_handling import is_device_lost, is_out_of_memory
from tests.unit.handlers.context import FakeContext
from tests.unit.handlers.core.shout import Shout
from torchserve_models.paths import ROOT


def set_gpus(monkeypatch, capabilities):
    """Fake one GPU for each compute capability."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: capabilities[gpu.index])
    monkeypatch.setattr(torch.version, "hip", None)


@pytest.fixture
def cores(monkeypatch):
    monkeypatch.setattr(device, "usable_cores", lambda: 8)


@pytest.mark.parametrize(
    ("gpu", "capability", "flags", "precision", "expected"),
    [
        (False, None, "avx2", "auto", ("cpu", torch.float32)),
        (False, None, "avx512_bf16", "auto", ("cpu", torch.float32)),
        (False, None, "amx_bf16", "auto", ("cpu", torch.bfloat16)),
        (False, None, "amx_bf16", "int8", ("cpu", torch.bfloat16)),
        (False, None, "amx_bf16", "fp32", ("cpu", torch.float32)),
        (False, None, "avx2", "bf16", ("cpu", torch.float32)),
        (False, None, "avx512_bf16", "bf16", ("cpu", torch.bfloat16)),
        (True, (8, 6), "avx2", "auto", ("cuda:1", torch.bfloat16)),
        (True, (7, 5), "amx_bf16", "auto", ("cuda:1", torch.float32)),
        (True, (6, 1), "amx_bf16", "bf16", ("cuda:1", torch.bfloat16)),
    ],
)
def test_device_and_precision_are_chosen(monkeypatch, cores, gpu, capability, flags, precision, expected):
    set_gpus(monkeypatch, [(9, 0), capability] if gpu else [])
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset({"fpu", flags}))
    chosen = Device.choose(1 if gpu else None, HandlerConfig(precision=precision))
    assert (str(chosen.torch_device), chosen.dtype) == expected


@pytest.mark.parametrize(
    ("capability", "gpu_id", "hip", "expected"),
    [
        *(
            ((6, 1), 1, None, torch.float32),
            ((7, 0), 1, None, torch.float16),
            ((7, 5), 1, None, torch.float16),
        ),
        *(
            ((8, 0), 1, None, torch.bfloat16),
            ((7, 5), 0, None, torch.bfloat16),
            ((7, 5), 1, "6.4", torch.bfloat16),
        ),
    ],
)
def test_precision_is_that_of_the_workers_gpu(monkeypatch, capability, gpu_id, hip, expected):
    """GPU 0, torch's current GPU, has bf16."""
    set_gpus(monkeypatch, [(9, 0), capability])
    monkeypatch.setattr(torch.version, "hip", hip)
    chosen = Device.choose(gpu_id, HandlerConfig(), fp16_on_gpu=True)
    assert chosen.dtype == expected
    assert chosen.precision in ("fp32", "fp16", "bf16")


def test_bf16_is_chosen_by_flags_of_the_task(monkeypatch):
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    chosen = Device.choose(None, HandlerConfig(), bf16_flags={"amx_bf16", "avx512_bf16"})
    assert chosen.describe()["precision"] == "bf16"


def test_bf16_without_instructions_for_it_is_replaced_with_a_warning(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset({"avx2"}))
    handler = Shout()
    with caplog.at_level(logging.WARNING):
        handler.initialize(FakeContext(tmp_path, {"handler": {"precision": "bf16"}}))
    assert "bf16 requires a CPU with one of amx_bf16, avx512_bf16: computing in fp32" in caplog.text
    description = handler.description()
    assert description["precision"] == "fp32"
    assert description["reason"] == "bf16 requires a CPU with one of amx_bf16, avx512_bf16"


def test_bf16_is_obeyed_on_a_cpu_with_unknown_flags(monkeypatch, caplog):
    monkeypatch.setattr(device, "cpu_flags", frozenset)
    chosen = Device.choose(None, HandlerConfig(precision="bf16"))
    assert (chosen.precision, chosen.warning) == ("bf16", "")


@pytest.mark.parametrize(
    ("workers", "share", "expected"), [(1, "auto", 0.9), (2, "auto", 0.9), (3, "auto", 0.45), (3, 0.2, 0.2)]
)
def test_gpu_memory_is_divided_by_workers(monkeypatch, workers, share, expected):
    """The machine has two GPUs, which TorchServe assigns to workers in turn."""
    limits = []
    set_gpus(monkeypatch, [(9, 0), (9, 0)])
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *limit: limits.append(limit))
    chosen = Device.choose(1, HandlerConfig(gpu_memory=share, threads=torch.get_num_threads()), workers)
    chosen.apply()
    assert limits == [(expected, torch.device("cuda:1"))]
    assert chosen.describe()["gpu_memory"] == expected


@pytest.mark.parametrize(
    ("device_ids", "workers", "expected"),
    [
        *((None, 4, 0.45), ([], 4, 0.45), ([1], 4, 0.225), ([0, 1], 3, 0.45), ([1, 1], 4, 0.225)),
        *(([1, 7], 4, 0.45), ("1", 4, 0.45), ([None], 4, 0.45)),  # TorchServe ignores the setting
        *(([0], 4, 0.225),),
    ],
)
def test_gpu_memory_is_divided_by_workers_of_the_models_gpus(monkeypatch, device_ids, workers, expected):
    set_gpus(monkeypatch, [(9, 0), (9, 0)])
    assert Device.choose(1, HandlerConfig(), workers, device_ids=device_ids).gpu_memory == expected


def test_share_of_gpu_memory_is_a_float(monkeypatch):
    """torch rejects the integer 1."""
    set_gpus(monkeypatch, [(9, 0)])
    for config in (HandlerConfig(gpu_memory=1), HandlerConfig.from_mapping({"gpu_memory": 1})):
        assert type(Device.choose(0, config).gpu_memory) is float


@pytest.mark.parametrize(
    ("value", "expected"), [("10", [10]), ("0", [0]), ("", []), (None, []), ("20", []), ("-1", []), ("x", [])]
)
def test_cpu_worker_takes_nice_value_of_environment(monkeypatch, value, expected):
    set_to = []
    monkeypatch.setattr(os, "setpriority", lambda which, who, nice: set_to.append(nice))
    if value is None:
        monkeypatch.delenv(NICE_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(NICE_VARIABLE, value)
    Device(torch.device("cpu"), torch.float32, torch.get_num_threads()).apply()
    assert set_to == expected


def test_threads_of_pool_run_torch_with_one_thread():
    before = torch.get_num_threads()
    pool = Device(torch.device("cpu"), torch.float32, 2).pool()
    with pool:
        assert set(pool.map(lambda _: torch.get_num_threads(), range(8))) == {1}
    assert torch.get_num_threads() == before
    assert Device(torch.device("cpu"), torch.float32, 1).pool() is None


@pytest.mark.parametrize(
    ("workers", "threads", "expected"),
    [(1, "auto", (8, 8)), (3, "auto", (2, 8)), (20, "auto", (1, 8)), (2, 5, (5, 5))],
)
def test_cores_are_divided_by_workers(cores, workers, threads, expected):
    """A batch of one item uses all cores unless the number of threads is configured."""
    chosen = Device.choose(None, HandlerConfig(threads=threads), workers)
    assert (chosen.threads, chosen.single_item_threads) == expected


def test_unusable_gpu_is_logged(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.WARNING):
        assert str(Device.choose(0, HandlerConfig()).torch_device) == "cpu"
    assert "cannot use it" in caplog.text


def test_cgroup_quota_limits_cores(monkeypatch):
    monkeypatch.setattr(device, "_cgroup_cores", lambda: 1.5)
    assert usable_cores() == 1


@pytest.mark.parametrize(
    ("error", "memory", "lost"),
    [
        (MemoryError(), True, False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True, False),
        (RuntimeError("CUDA error: out of memory"), True, False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True, False),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True, False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False, True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False, True),
        (RuntimeError("shapes do not match"), False, False),
        (ValueError("CUDA error: somebody's text"), False, False),
    ],
)
def test_exceptions_are_classified(error, memory, lost):
    assert (is_out_of_memory(error), is_device_lost(error)) == (memory, lost)


def test_kernel_caches_are_limited_unless_environment_sets_them(monkeypatch):
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    limit_kernel_caches(128)
    assert (os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"], os.environ["LRU_CACHE_CAPACITY"]) == ("7", "128")


@pytest.mark.full
def test_memory_stays_bounded_for_texts_of_many_lengths():
    """Runs in a process for each limit, because the caches belong to a process."""
    script = """
import os, random
import psutil, torch
from handlers.core.device import limit_kernel_caches

def growth():
    torch.set_num_threads(1)
    layer = torch.nn.Linear(256, 256, dtype=torch.bfloat16)
    with torch.inference_mode():
        layer(torch.rand(4, 256).bfloat16())
        before = psutil.Process().memory_full_info().uss
        for rows in random.Random(1).sample(range(2, 1000), 300):
            layer(torch.rand(rows, 256).bfloat16())
    return psutil.Process().memory_full_info().uss - before

for entries in (None, 32):
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
    else:
        if entries:
            limit_kernel_caches(entries)
        print(growth(), flush=True)
        os._exit(0)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        environment.pop(name, None)
    line = [sys.executable, "-c", script]
    output = subprocess.run(line, env=environment, check=True, capture_output=True, text=True).stdout
    unlimited, limited = map(int, output.split())
    if unlimited < 20 * 2**20:
        pytest.skip("this processor's kernels take no memory to speak of")
    assert limited < unlimited / 2
