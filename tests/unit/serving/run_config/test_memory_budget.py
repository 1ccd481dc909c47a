"""Tests of the memory budget: its parts, memory limits, and options set by the user."""

import pytest

from torchserve_models.serving.run_config.memory_budget import (
    GIB,
    MIB,
    compute_budget,
    java_options,
    memory_limit,
)


@pytest.mark.parametrize("gib", [4, 8, 16, 64, 512])
@pytest.mark.parametrize("has_edge", [True, False])
def test_parts_add_up_to_the_total(gib, has_edge):
    budget = compute_budget(gib * GIB, has_edge=has_edge)
    java = budget.java_heap + budget.java_direct + budget.java_native
    edge = budget.gateway + budget.nginx
    assert java + edge + budget.supervisor + budget.workers == gib * GIB
    assert (edge > 0) is has_edge
    assert budget.workers >= gib * GIB // 4
    assert budget.body_bytes < budget.java_heap
    assert 2 * budget.body_bytes <= budget.java_direct


def test_container_of_8_gib_has_the_documented_budget():
    budget = compute_budget(8 * GIB, has_edge=False)
    assert (budget.java_heap, budget.java_direct) == (2 * GIB, GIB)
    assert budget.bodies == 32
    assert budget.body_bytes == 512 * MIB
    assert "Java heap 2048 MiB" in str(budget)
    assert budget.parts()["java_heap"] == 2 * GIB


def test_small_machine_still_has_a_front_end():
    budget = compute_budget(GIB)
    assert budget.workers == 0
    assert budget.java_heap == 512 * MIB
    assert budget.bodies >= 1


def test_user_options_take_precedence():
    budget = compute_budget(8 * GIB)
    assert java_options("-XX:TieredStopAtLevel=1", budget) == [
        "-XX:TieredStopAtLevel=1",
        "-Xmx2048m",
        "-XX:MaxDirectMemorySize=1024m",
        "-XX:+ExitOnOutOfMemoryError",
    ]
    options = "-Xmx1g -XX:MaxDirectMemorySize=1g -XX:-ExitOnOutOfMemoryError"
    assert java_options(options, budget) == options.split()
    assert "-Xmx2048m" not in java_options("-XX:MaxRAMPercentage=50", budget)


def system(root, files):
    for name, content in {"proc/meminfo": "MemTotal:       16777216 kB\nMemFree: 1 kB\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return memory_limit(root)


def test_machine_without_limits_uses_its_memory(tmp_path):
    assert system(tmp_path, {"proc/self/cgroup": "0::/user.slice\n"}) == (16 * GIB, False)


def test_smallest_limit_of_version_2_groups_is_used(tmp_path):
    files = {
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/a/memory.max": f"{4 * GIB}\n",
        "sys/fs/cgroup/a/b/memory.max": "max\n",
    }
    assert system(tmp_path, files) == (4 * GIB, True)


def test_version_2_limit_in_a_container_is_used(tmp_path):
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{8 * GIB}\n"}
    assert system(tmp_path, files) == (8 * GIB, True)


def test_huge_version_1_limit_is_unlimited(tmp_path):
    files = {
        "proc/self/cgroup": "4:memory:/docker/x\n2:cpu,cpuacct:/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
        "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "9223372036854771712\n",
    }
    assert system(tmp_path, files) == (2 * GIB, True)
