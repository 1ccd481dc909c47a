"""System tools that tests need. `python3 tests/tools.py` prints the Debian packages of the missing tools."""

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

PACKAGES = {
    "amtool": "prometheus-alertmanager",
    "chromedriver": "chromium-driver",
    "chromium": "chromium",
    "curl": "curl",
    "envsubst": "gettext-base",
    "g++": "g++",
    "jq": "jq",
    "nginx": "nginx",
    "node": "nodejs",
    "npm": "npm",
    "openssl": "openssl",
    "prometheus": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "promtool": "prometheus",
    "systemd-analyze": "systemd",
    "unzip": "unzip",
}
"""The Debian package that holds each tool."""
FIXTURES = {"browser": ("chromedriver", "chromium"), "compiled": ("g++",)}
"""Fixtures that skip their tests without these tools."""


def needs(*tools: str) -> "pytest.MarkDecorator":
    """Return a mark that skips a test, or a module through `pytestmark`, if one of these tools is missing."""
    import pytest

    unknown = set(tools) - set(PACKAGES)
    assert not unknown, f"name the packages of {unknown} in {__file__}"
    return pytest.mark.needs_tools(*tools)


def find_tool(name: str) -> str | None:
    """Return the path of a program; Debian keeps nginx in a folder that only root's PATH has."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


def missing_tools(tools: Iterable[str] = PACKAGES) -> list[str]:
    """Return those of the tools that are not installed, sorted."""
    return sorted(tool for tool in tools if find_tool(tool) is None)


def install_command(tools: Iterable[str]) -> str:
    """Return the command that installs the tools on Debian and Ubuntu."""
    return "apt-get install -y " + " ".join(sorted({PACKAGES[tool] for tool in tools}))


def describe_missing(tools: list[str]) -> list[str]:
    """Return the first lines of a test run."""
    if not tools:
        return ["system tools: all are installed"]
    return [
        f"system tools that are missing: {', '.join(tools)}; the tests that need them are skipped",
        f"to install them: {install_command(tools)}",
    ]


def describe_skipped(counts: Mapping[str, int]) -> list[str]:
    """Return a message with the number of tests that each missing tool skips."""
    if not counts:
        return []
    tools = ", ".join(f"{tool}: {count}" for tool, count in sorted(counts.items()))
    return [f"tests that are skipped because a tool is missing: {tools}"]


def skip_tests(items: "Iterable[pytest.Item]") -> Counter[str]:
    """Skip the marked tests whose tools are missing; return how many tests each missing tool skips."""
    import pytest

    missing = set(missing_tools())
    counts: Counter[str] = Counter()
    for item in items:
        tools = {tool for mark in item.iter_markers("needs_tools") for tool in mark.args}
        tools.update(*(FIXTURES[name] for name in getattr(item, "fixturenames", ()) if name in FIXTURES))
        if tools := tools & missing:
            reason = f"{', '.join(sorted(tools))} not installed ({install_command(tools)})"
            item.add_marker(pytest.mark.skip(reason=reason))
            counts.update(tools)
    return counts


if __name__ == "__main__":
    print("\n".join(sorted({PACKAGES[tool] for tool in missing_tools()})))
