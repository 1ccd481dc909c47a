"""What the peers have in common: a virtual environment, commands to run in the folder of their files, one port."""

import os
import shutil
import signal
import subprocess
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import environments
from benchmarks.errors import Unavailable
from benchmarks.systems.base import (
    START_SECONDS,
    Served,
    System,
    Workplace,
    family,
    free_port,
    labeled,
    wait_for_answer,
)
from torchserve_models.loadgen import LoadGenerator, Target

_PATIENCE = 10.0  # seconds from SIGTERM to SIGKILL
_OURS = (
    "PYTHONPATH",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "THP_MEM_ALLOC_ENABLE",
    "MKL_NUM_THREADS",
    "MODEL",
    "PORT",
)


@dataclass(frozen=True)
class Stage:
    """Where a peer is started: `files` are its own in benchmarks/peers/, `folder` is its run folder."""

    bin: Path
    files: Path
    folder: Path
    model: Path
    port: int


class Spawned(System):
    """Commands in an environment of their own; `files` names the folder in benchmarks/peers/, the name by default."""

    peer = True
    files = ""
    patience = START_SECONDS

    @abstractmethod
    def commands(self, stage: Stage) -> Sequence[Sequence[str]]:
        """What to start, after `prepare`."""

    @abstractmethod
    def target(self, place: Workplace, port: int) -> Target:
        """What it has to answer before it counts as started."""

    @property
    def runs_in(self) -> str:
        """The name of its run folder."""
        return self.name

    def packages(self, place: Workplace) -> Path:
        """The `bin` folder of its environment. Raises Unavailable."""
        return environments.ready(self.name, place.root / "venvs")

    def prepare(self, stage: Stage) -> None:
        """Writes what the commands need. Raises Unavailable."""

    def environment(self, stage: Stage) -> Mapping[str, str]:  # noqa: ARG002
        """Added to the environment of the commands."""
        return {}

    def start(self, place: Workplace, generator: LoadGenerator) -> Served:
        bin_folder, files = self.packages(place), self.files or self.name
        folder = place.run_folder(self.runs_in)
        stage = Stage(bin_folder, environments.PEERS / files, folder, place.model.resolve(), free_port())
        self.prepare(stage)
        target = self.target(place, stage.port)
        with ExitStack() as stack:
            commands = Commands(self.commands(stage), stage, self.environment(stage))
            stack.callback(commands.stop)
            wait_for_answer(target, commands.ended, self.patience)
            stack.pop_all()
        return _Peer(commands, target, generator)


class Peer(Spawned):
    """Threads, workers and timeouts are what the peer's manual shows; where it says nothing, they are its own."""

    path = "/predict"

    @abstractmethod
    def request(self, image: bytes) -> bytes:
        """The whole HTTP request that asks for an image's labels."""

    def target(self, place: Workplace, port: int) -> Target:
        return labeled("127.0.0.1", port, [self.request(image) for image in place.images])


class Commands:
    """Processes in sessions of their own; what they print goes to output.txt of the run folder."""

    def __init__(
        self, commands: Sequence[Sequence[str]], stage: Stage, environment: Mapping[str, str]
    ) -> None:
        kept = {key: value for key, value in os.environ.items() if key not in _OURS}
        own = {"MODEL": str(stage.model), "PORT": str(stage.port), "HF_HUB_OFFLINE": "1"}
        self._log = stage.folder / "output.txt"
        self._running: list[subprocess.Popen[bytes]] = []
        with open(self._log, "wb") as log:
            for command in commands:
                self._running.append(
                    subprocess.Popen(
                        command,
                        cwd=stage.files,
                        env={**kept, **own, **environment, "PATH": f"{stage.bin}:{kept.get('PATH', '')}"},
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )

    def ended(self) -> str | None:
        """The last line that was printed, when one of them has ended."""
        if all(process.poll() is None for process in self._running):
            return None
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return f"ended at its start: {lines[-1] if lines else 'it printed nothing'}"

    def roots(self) -> list[psutil.Process]:
        return [psutil.Process(each.pid) for each in self._running if each.poll() is None]

    def stop(self) -> None:
        everything = family(self.roots())
        for each in self._running:
            if each.poll() is None:
                each.terminate()
        for process in psutil.wait_procs(everything, timeout=_PATIENCE)[1]:
            with suppress(psutil.Error):
                process.kill()
        for each in self._running:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(each.pid, signal.SIGKILL)  # what its parent has left behind
            each.wait()


class _Peer(Served):
    def __init__(self, commands: Commands, target: Target, generator: LoadGenerator) -> None:
        super().__init__(target, generator)
        self._commands = commands

    def processes(self) -> list[psutil.Process]:
        return self._commands.roots()

    def stop(self) -> None:
        self._commands.stop()


def program(name: str) -> str:
    """The path of a program of the machine. Raises Unavailable."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Unavailable(f"{name} is not installed on this machine")
    return found
