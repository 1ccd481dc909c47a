"""Which tests share a process, and which start first, when `scripts/test` runs them in parallel.

The tests of a file share a process, as do all that use the same server. Groups that take long start first, so that no
process is left with one at the end.
"""

from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parent.parent
SERVER_GROUPS = {
    "tests/browser/": "second server",
    "tests/faults/test_chaos.py": "second server",
    "tests/faults/test_hostile_bodies.py": "second server",
    "tests/faults/test_mixed_load.py": "second server",
    "tests/server/test_bench.py": "second server",
    "tests/server/test_openapi.py": "second server",
    "tests/server/test_wheel.py": "wheel",
    "tests/server/": "server",
}
"""The groups of the files whose tests use the fixture `server`, which starts one TorchServe for each group.

The first entry whose key is the beginning of a path decides. The groups take about equally long.
"""
LONGEST_FIRST = (
    "server",
    "second server",
    "tests/faults/test_restart.py",
    "tests/faults/test_state.py",
    "tests/faults/test_version_change.py",
    "tests/faults/test_readiness.py",
    "tests/faults/test_workers.py",
    "wheel",
    "tests/unit/handlers/engines",
    "tests/unit/packing",
    "tests/unit/handlers",
    "tests/unit/training",
)
"""Groups, or the beginnings of their names, that take longest."""


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Give each process whole groups."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid.partition("::")[0])


def group_of(file: str) -> str:
    """Return the group of the tests of a file, whose path begins with tests/."""
    return next((group for start, group in SERVER_GROUPS.items() if file.startswith(start)), file)


def check_groups(items: list[pytest.Item]) -> None:
    """Check that all tests that use the fixture `server` are in a group that has one. Raises UsageError."""
    for item in items:
        file = _file(item)
        uses_server = not file.startswith("tests/unit/") and "server" in getattr(item, "fixturenames", ())
        if uses_server and group_of(file) not in SERVER_GROUPS.values():
            raise pytest.UsageError(
                f"{file} uses the fixture `server`; add it to SERVER_GROUPS in {__file__}"
            )


def sort_groups(items: list[pytest.Item]) -> None:
    """Put the groups that take long first."""
    items.sort(key=lambda item: _rank(group_of(_file(item))))


def _file(item: pytest.Item) -> str:
    return item.path.relative_to(ROOT).as_posix()


def _rank(group: str) -> int:
    return next(
        (rank for rank, name in enumerate(LONGEST_FIRST) if group.startswith(name)), len(LONGEST_FIRST)
    )
