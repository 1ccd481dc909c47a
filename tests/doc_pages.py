"""The pages' fenced blocks, and a folder like a checkout in which their commands run against a test's server.

What a fence's first line says: ```bash and ```python are run; with `file=NAME` behind it a block of any kind is
written to that file; `fails` is for a command that ends with an error. A ```text or ```json block right behind one is
what it prints, where `...` stands for anything.
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
ELSEWHERE = {
    "scripts/serve": "tests/server/test_readme.py",
    "scripts/stop": "tests/server/test_readme.py",
    "scripts/test": "tests/server/test_readme.py",
    "scripts/bench": "tests/server/test_bench.py",
    "scripts/chaos": "tests/faults/test_chaos.py",
    "scripts/gateway": "tests/server/test_gateway.py",
    "scripts/demo": "tests/browser/conftest.py",
    "scripts/image": "tests/image/test_image.py",
    ".venv/bin/python -m torchserve_models.tuning": "tests/unit/tuning/test_sweep.py",
    "docker": "tests/unit/scripts/test_image.py",
}
"""Commands that start something of their own, and the tests that run them."""
_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOT_LINKED = {"scripts", "model_store"}  # beside everything hidden


@dataclass(frozen=True)
class Block:
    """`line` is where its fence stands, `output` what the page says that it prints."""

    page: Path
    line: int
    kind: str
    words: tuple[str, ...]
    text: str
    output: str | None = None

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def file(self) -> str | None:
        return next((word.removeprefix("file=") for word in self.words if word.startswith("file=")), None)

    @property
    def fails(self) -> bool:
        return "fails" in self.words

    @property
    def commands(self) -> list[str]:
        """Of bash: a command a line, comments left out; what is indented goes on with the line before."""
        text = self.text.replace("\\\n", " ")
        return [line for line in text.splitlines() if line.strip() and not line.startswith(("#", " "))]


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, but those that are another one's output."""
    text, found, end = page.read_text(), [], 0
    for match in _FENCE.finditer(text):
        kind, *words = match[1].split() or [""]
        is_next = bool(found) and not text[end : match.start()].strip()
        end = match.end()
        if is_next and kind in OUTPUT and not words and found[-1].kind in RUN and not found[-1].file:
            last = found.pop()
            found.append(Block(page, last.line, last.kind, last.words, last.text, match[2]))
            continue
        found.append(Block(page, text.count("\n", 0, match.start()) + 1, kind, tuple(words), match[2]))
    return found


def elsewhere(block: Block) -> bool:
    """Whether it begins with one of those commands: what follows is about what that started.

    In the middle of a block there may be none, so that nothing is left out unseen.
    """
    if block.kind != "bash" or not block.commands:
        return False
    first, *others = (command.startswith(tuple(ELSEWHERE)) for command in block.commands)
    assert first or not any(others), f"{block.place}: split this block"
    return first


def missing_tools(block: Block) -> list[str]:
    """Programs that the block calls and that this machine lacks."""
    words = {word for command in block.commands for word in re.split(r"[\s|;&]+", command)[:1]}
    return sorted(word for word in words if word in ("curl", "unzip", "jq") and shutil.which(word) is None)


class Checkout:
    """A folder that looks like a checkout with a server on its usual ports: those of the server under test."""

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
        self.leads({})

    def leads(self, addresses: Mapping[str, str]) -> None:
        """Further ones: a documented `host:port` to where that is here."""
        self.addresses |= addresses
        for name, content in self._wrappers():
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/usr/bin/env bash\nset -e\n{content}\n")
            path.chmod(0o755)

    def _wrappers(self) -> Iterator[tuple[str, str]]:
        """The scripts with the options that lead to this server; curl that goes there, and says it where it fails."""
        port = {name: address.rpartition(":")[2] for name, address in self.addresses.items()}
        ask = f"--port {port['127.0.0.1:8080']} --grpc-port {port['127.0.0.1:7070']}"
        manage = (
            f"{ask} --management-port {port['127.0.0.1:8081']} --metrics-port {port['127.0.0.1:8082']}"
            f" --grpc-management-port {port['127.0.0.1:7071']}"
        )
        options = {
            "predict": ask,
            "manage": manage,
            "pack": f"--store {shlex.quote(str(self.server.store))}",
            "status": f"--run-dir {shlex.quote(str(self.server.run_dir))}",
            "setup": "",
        }
        for name, added in options.items():
            yield f"scripts/{name}", f'exec {shlex.quote(str(ROOT / "scripts" / name))} "$@" {added}'
        found = shutil.which("curl")
        if found:
            leads = " ".join(
                f"--connect-to {host}:{name.rpartition(':')[2]}:{address}"
                for name, address in self.addresses.items()
                for host in ("127.0.0.1", "localhost")
            )
            yield (
                "bin/curl",
                f'status=0; {found} -s --fail-with-body {leads} "$@" || status=$?; echo; exit $status',
            )

    def write(self, block: Block) -> None:
        path = self.folder / str(block.file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)

    def run(self, block: Block) -> str:
        """What the block prints, errors too; AssertionError where it ends otherwise than its fence says."""
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
        assert (done.returncode != 0) == block.fails, f"{block.place}: exit code {done.returncode}\n{output}"
        return output

    def _python(self, text: str) -> str:
        """Our client gets the addresses as an argument, everything else in its URLs."""
        for name, address in self.addresses.items():
            text = text.replace(name, address)
        text = re.sub(r"(?<![\w.])((?:Async)?Client)\((\))?", self._with_endpoints, text)
        return f"from torchserve_models import client\nENDPOINTS = client.{self.server.endpoints!r}\n{text}"

    @staticmethod
    def _with_endpoints(match: re.Match[str]) -> str:
        return f"{match[1]}(endpoints=ENDPOINTS{')' if match[2] else ', '}"


def prints(expected: str, output: str) -> bool:
    """Whether `output` is what a page shows, where `...` stands for anything; empty lines do not count."""
    pattern = ".*?".join(map(re.escape, _lines(expected).split("...")))
    return re.fullmatch(pattern, _lines(output), re.DOTALL) is not None


def _lines(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())
