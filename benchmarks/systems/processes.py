"""CPU time and memory of process trees."""

import os
import signal
from collections.abc import Iterable
from contextlib import suppress

import psutil


def list_tree(roots: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return the living processes among `roots` and all their descendants, without this process."""
    tree: dict[int, psutil.Process] = {}
    for root in roots:
        with suppress(psutil.Error):
            tree |= {process.pid: process for process in (root, *root.children(recursive=True))}
    tree.pop(os.getpid(), None)
    return list(tree.values())


def send_signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)


def sum_cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def sum_memory_mb(processes: Iterable[psutil.Process]) -> dict[str, float]:
    """Return the PSS, which divides shared pages among processes, and the USS, which excludes them."""
    total = {"pss": 0.0, "uss": 0.0}
    for process in processes:
        with suppress(psutil.Error):
            info = process.memory_full_info()
            total = {key: value + getattr(info, key) / 1e6 for key, value in total.items()}
    return total
