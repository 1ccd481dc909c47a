"""The memory of processes."""

import psutil

from benchmarks.systems import processes


def test_memory_of_processes_is_measured():
    memory = processes.sum_memory_mb([psutil.Process()])
    assert memory["pss"] >= memory["uss"] > 1
