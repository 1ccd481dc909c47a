"""Parse the fenced code blocks of documentation pages, and run them with the server of a test.

Blocks that start with ```bash or ```python are run. A block with `file=NAME` after the language is written to that
file instead. `fails` marks a command that exits with an error. A ```text or ```json block directly after a block is
its expected output, in which `...` matches any text.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT
from torchserve_models import client, serving
from torchserve_models.serving.commands import samples

RUN = ("bash", "python")
OUTPUT = ("text", "json")
TESTED_ELSEWHERE = {
    "scripts/serve": "tests/server/test_readme.py",
    "scripts/stop": "tests/server/test_readme.py",
    "scripts/test": "tests/server/test_readme.py",
    "scripts/bench": "tests/server/test_bench.py",
    "scripts/chaos": "tests/faults/test_chaos.py",
    "scripts/gateway": "tests/server/test_gateway.py",
    "scripts/demo": "tests/browser/conftest.py",
    "scripts/image": "tests/image/test_image.py",
    "scripts/tune": "tests/unit/tuning/test_sweep.py",
    "docker": "tests/unit/scripts/test_image.py",
}
"""Commands that are not run from the pages because they start servers or builds, and the tests that run them."""
_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOT_LINKED = {"scripts", "model_store"}  # in addition to hidden files


@dataclass(frozen=True)
class Block:
    """A fenced code block. `line` is the number of its first line; `output` is its expected output."""

    page: Path
    line: int
    kind: str
    words: tuple[str, ...]
    text: str
    output: str | None = None

    @property
    def location(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def file(self) -> str | None:
        return next((word.removeprefix("file=") for word in self.words if word.startswith("file=")), None)

    @property
    def fails(self) -> bool:
        return "fails" in self.words

    @property
    def commands(self) -> list[str]:
        """The commands of a bash block, one per line, without comments and indented continuation lines."""
        text = self.text.replace("\\\n", " ")
        return [line for line in text.splitlines() if line.strip() and not line.startswith(("#", " "))]


def blocks(page: Path) -> list[Block]:
    """Return all fenced blocks of a page, except expected outputs."""
    text, parsed, end = page.read_text(), [], 0
    for match in _FENCE.finditer(text):
        kind, *words = match[1].split() or [""]
        is_next = bool(parsed) and not text[end : match.start()].strip()
        end = match.end()
        if is_next and kind in OUTPUT and not words and parsed[-1].kind in RUN and not parsed[-1].file:
            last = parsed.pop()
            parsed.append(Block(page, last.line, last.kind, last.words, last.text, match[2]))
            continue
        parsed.append(Block(page, text.count("\n", 0, match.start()) + 1, kind, tuple(words), match[2]))
    return parsed


def is_tested_elsewhere(block: Block) -> bool:
    """Return whether the block begins with a command that another test runs.

    The remaining commands depend on the first one. Raises AssertionError if another test runs one of them.
    """
    if block.kind != "bash" or not block.commands:
        return False
    first, *others = (command.startswith(tuple(TESTED_ELSEWHERE)) for command in block.commands)
    assert first or not any(others), f"{block.location}: split this block"
    return first


def missing_tools(block: Block) -> list[str]:
    """Return the programs that the block calls and that are not installed."""
    words = {word for command in block.commands for word in re.split(r"[\s|;&]+", command)[:1]}
    return sorted(word for word in words if word in ("curl", "unzip", "jq") and shutil.which(word) is None)


class Checkout:
    """A folder with the files of the checkout, in which documented addresses are those of the server under test."""

    def __init__(self, folder: Path, server: serving.Server) -> None:
        self.folder, self.server = folder, server
        ends = server.endpoints
        documented = client.Endpoints()
        self.addresses = {
            documented.inference.removeprefix("http://"): ends.inference.removeprefix("http://"),
            documented.management.removeprefix("http://"): ends.management.removeprefix("http://"),
            documented.metrics.removeprefix("http://"): ends.metrics.removeprefix("http://"),
            documented.health.removeprefix("http://"): ends.health.removeprefix("http://"),
            documented.grpc_inference: ends.grpc_inference,
            documented.grpc_management: ends.grpc_management,
        }
        for path in ROOT.iterdir():
            if not path.name.startswith(".") and path.name not in _NOT_LINKED:
                (folder / path.name).symlink_to(path)
        (folder / ".venv").symlink_to(Path(sys.prefix))
        (folder / "model_store").symlink_to(server.store)
        (folder / ".run").mkdir()
        (folder / ".run" / "logs").symlink_to(server.run_dir / "logs")
        samples.write(folder / ".run" / "samples")
        self.add_addresses({})

    def add_addresses(self, addresses: Mapping[str, str]) -> None:
        """Add addresses: the actual `host:port` of each documented one."""
        self.addresses |= addresses
        for name, content in self._wrappers():
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/usr/bin/env bash\nset -e\n{content}\n")
            path.chmod(0o755)

    def _wrappers(self) -> Iterator[tuple[str, str]]:
        """Yield path and content of scripts that add the server's addresses to scripts/* and curl."""
        port = {name: address.rpartition(":")[2] for name, address in self.addresses.items()}
        address_options = f"--port {port['127.0.0.1:8080']} --grpc-port {port['127.0.0.1:7070']}"
        manage = (
            f"{address_options} --management-port {port['127.0.0.1:8081']} --metrics-port {port['127.0.0.1:8082']}"
            f" --grpc-management-port {port['127.0.0.1:7071']}"
        )
        options = {
            "predict": address_options,
            "manage": manage,
            "pack": f"--store {shlex.quote(str(self.server.store))}",
            "status": f"--run-dir {shlex.quote(str(self.server.run_dir))}",
            "setup": "",
        }
        for name, added in options.items():
            yield f"scripts/{name}", f'exec {shlex.quote(str(ROOT / "scripts" / name))} "$@" {added}'
        curl = shutil.which("curl")
        if curl:
            connections = " ".join(
                f"--connect-to {host}:{name.rpartition(':')[2]}:{address}"
                for name, address in self.addresses.items()
                for host in ("127.0.0.1", "localhost")
            )
            yield (
                "bin/curl",
                f'status=0; {curl} -s --fail-with-body {connections} "$@" || status=$?; echo; exit $status',
            )

    def write(self, block: Block) -> None:
        path = self.folder / str(block.file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)

    def run(self, block: Block) -> str:
        """Run the block; return its output and errors. Raises AssertionError for an unexpected exit code."""
        if block.kind == "python":
            command = [sys.executable, "-c", self._python(block.text)]
        else:
            command = ["bash", "-c", f"set -eo pipefail\n{block.text}"]
        environment = os.environ | {"PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
        )
        output = done.stdout
        for name, address in self.addresses.items():
            output = output.replace(address, name)
        assert (done.returncode != 0) == block.fails, (
            f"{block.location}: exit code {done.returncode}\n{output}"
        )
        return output

    def _python(self, text: str) -> str:
        """Return Python code with the actual addresses in URLs and as arguments of this project's clients."""
        for name, address in self.addresses.items():
            text = text.replace(name, address)
        text = re.sub(r"(?<![\w.])((?:Async)?Client)\((\))?", self._with_endpoints, text)
        return f"from torchserve_models import client\nENDPOINTS = client.{self.server.endpoints!r}\n{text}"

    @staticmethod
    def _with_endpoints(match: re.Match[str]) -> str:
        return f"{match[1]}(endpoints=ENDPOINTS{')' if match[2] else ', '}"


def matches_output(expected: str, output: str) -> bool:
    """Return whether `output` matches the expected output, ignoring empty lines. `...` matches any text."""
    pattern = ".*?".join(map(re.escape, _lines(expected).split("...")))
    return re.fullmatch(pattern, _lines(output), re.DOTALL) is not None


def _lines(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())
