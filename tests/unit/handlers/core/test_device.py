"""Device, precision and threads, as far as a machine without a GPU can tell."""

import logging
import os
import subprocess
import sys

import pytest
import torch

from handlers.core import device
from handlers.core.config import HandlerConfig
from handlers.core.device import NICE_VARIABLE, Device, limit_kernel_caches, usable_cores
from handlers.core.faults import is_device_lost, is_out_of_memory
from torchserve_models.paths import ROOT


@pytest.fixture
def cores(monkeypatch):
    monkeypatch.setattr(device, "usable_cores", lambda: 8)


@pytest.mark.parametrize(
    ("gpu", "gpu_bf16", "flags", "precision", "expected"),
    [
        (False, False, "avx2", "auto", ("cpu", torch.float32)),
        (False, False, "avx512_bf16", "auto", ("cpu", torch.float32)),
        (False, False, "amx_bf16", "auto", ("cpu", torch.bfloat16)),
        (False, False, "amx_bf16", "int8", ("cpu", torch.bfloat16)),
        (False, False, "amx_bf16", "fp32", ("cpu", torch.float32)),
        (False, False, "avx2", "bf16", ("cpu", torch.bfloat16)),
        (True, True, "avx2", "auto", ("cuda:1", torch.bfloat16)),
        (True, False, "amx_bf16", "auto", ("cuda:1", torch.float32)),
    ],
)
def test_choice(monkeypatch, cores, gpu, gpu_bf16, flags, precision, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu_bf16)
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset({"fpu", flags}))
    chosen = Device.choose(1 if gpu else None, HandlerConfig(precision=precision))
    assert (str(chosen.torch_device), chosen.dtype) == expected


def test_a_task_says_which_flags_make_bf16_worth_it(monkeypatch):
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    chosen = Device.choose(None, HandlerConfig(), bf16_flags={"amx_bf16", "avx512_bf16"})
    assert chosen.describe()["precision"] == "bf16"


@pytest.mark.parametrize(
    ("workers", "share", "expected"), [(1, "auto", 0.9), (2, "auto", 0.9), (3, "auto", 0.45), (3, 0.2, 0.2)]
)
def test_workers_share_the_memory_of_the_gpus(monkeypatch, workers, share, expected):
    """Two GPUs here; TorchServe deals them out in turn."""
    limits = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *limit: limits.append(limit))
    chosen = Device.choose(1, HandlerConfig(gpu_memory=share, threads=torch.get_num_threads()), workers)
    chosen.apply()
    assert limits == [(expected, torch.device("cuda:1"))]
    assert chosen.describe()["gpu_memory"] == expected


@pytest.mark.parametrize(
    ("value", "expected"), [("10", [10]), ("0", [0]), ("", []), (None, []), ("20", []), ("-1", []), ("x", [])]
)
def test_a_worker_on_the_cpu_takes_the_priority_that_its_environment_names(monkeypatch, value, expected):
    set_to = []
    monkeypatch.setattr(os, "setpriority", lambda which, who, nice: set_to.append(nice))
    if value is None:
        monkeypatch.delenv(NICE_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(NICE_VARIABLE, value)
    Device(torch.device("cpu"), torch.float32, torch.get_num_threads()).apply()
    assert set_to == expected


def test_threads_of_the_pool_do_not_multiply():
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
def test_threads_are_the_cores_divided_by_the_workers(cores, workers, threads, expected):
    """Of an item that comes alone, all of them, unless the configuration says how many."""
    chosen = Device.choose(None, HandlerConfig(threads=threads), workers)
    assert (chosen.threads, chosen.lone_threads) == expected


def test_a_gpu_that_cannot_be_used_is_said(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.WARNING):
        assert str(Device.choose(0, HandlerConfig()).torch_device) == "cpu"
    assert "cannot use it" in caplog.text


def test_a_control_groups_quota_counts(monkeypatch):
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
def test_what_a_failure_means(error, memory, lost):
    assert (is_out_of_memory(error), is_device_lost(error)) == (memory, lost)


def test_caches_of_kernels_are_limited_unless_the_environment_says_otherwise(monkeypatch):
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    limit_kernel_caches(128)
    assert (os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"], os.environ["LRU_CACHE_CAPACITY"]) == ("7", "128")


@pytest.mark.full
def test_texts_of_many_lengths_do_not_fill_memory():
    """In a process of its own, as the caches are the process's."""
    script = """
import os, random, sys
from handlers.core.device import limit_kernel_caches
if sys.argv[1] != "unlimited":
    limit_kernel_caches(int(sys.argv[1]))
import psutil, torch
torch.set_num_threads(1)
layer = torch.nn.Linear(256, 256, dtype=torch.bfloat16)
with torch.inference_mode():
    layer(torch.rand(4, 256).bfloat16())
    before = psutil.Process().memory_full_info().uss
    for rows in random.Random(1).sample(range(2, 3000), 600):
        layer(torch.rand(rows, 256).bfloat16())
print(psutil.Process().memory_full_info().uss - before)
"""

    def growth(entries):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
            environment.pop(name, None)
        line = [sys.executable, "-c", script, entries]
        return int(subprocess.run(line, env=environment, check=True, capture_output=True, text=True).stdout)

    unlimited = growth("unlimited")
    if unlimited < 20 * 2**20:
        pytest.skip("this processor's kernels take no memory to speak of")
    assert growth("32") < unlimited / 2
