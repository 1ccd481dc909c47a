"""Resource usage of a stack's processes: number, memory and file descriptors by role, and their growth."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from tests.chaos.stack import Stack

MB = 10**6
GROWTH = 1.1
SLACK_MB = {"java": 150, "worker": 80, "gateway": 30, "nginx": 20, "supervisor": 40, "front": 20}
SLACK_FDS = 24
POLL_S = 1.0


@dataclass(frozen=True)
class ResourceUsage:
    """Resource usage of all processes of one role. `memory` is unshared memory (USS) in bytes."""

    count: int
    memory: int
    fds: int


def usage(stack: Stack) -> dict[str, ResourceUsage]:
    usages = {}
    for role, processes in stack.processes().items():
        memory = fds = count = 0
        for process in processes:
            try:
                memory += process.memory_full_info().uss
                fds += process.num_fds()
                count += 1
            except psutil.Error:  # it ended just now
                continue
        usages[role] = ResourceUsage(count, memory, fds)
    return usages


def problems(before: Mapping[str, ResourceUsage], after: Mapping[str, ResourceUsage]) -> list[str]:
    """Return the differences in usage; growth within GROWTH and the role's slack is ignored."""
    differences = []
    for role, old in before.items():
        new = after.get(role, ResourceUsage(0, 0, 0))
        if new.count != old.count:
            differences.append(f"{role}: {new.count} processes instead of {old.count}")
        if new.memory > old.memory * GROWTH + SLACK_MB.get(role, 50) * MB:
            differences.append(f"{role}: {new.memory // MB} MB instead of {old.memory // MB}")
        if new.fds > old.fds * GROWTH + SLACK_FDS:
            differences.append(f"{role}: {new.fds} file descriptors instead of {old.fds}")
    return differences


def settled(
    stack: Stack, before: Mapping[str, ResourceUsage], timeout: float
) -> tuple[dict[str, ResourceUsage], list[str]]:
    """Wait until the usage is as before, or `timeout` seconds; return the usage and the remaining differences."""
    end = time.monotonic() + timeout
    while True:
        after = usage(stack)
        differences = problems(before, after)
        differences += [f"orphaned process {process.pid}" for process in stack.orphans()]
        if not differences or time.monotonic() > end:
            return after, differences
        time.sleep(POLL_S)
