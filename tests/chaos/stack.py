"""Server under test, started as an operator would: scripts/serve and scripts/gateway in separate processes."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.chaos.errors import ChaosError
from tests.live_server import free_offset
from torchserve_models.client import Client, Endpoints, Model, TorchServeError
from torchserve_models.reserved_ports import port_of, reserve_port
from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.run_config.state import RunState

ROOT = Path(__file__).resolve().parent.parent.parent
START_TIMEOUT_S = 420.0
"""Limit for the start, including packing of the starter archives."""
STOP_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class VersionWorkers:
    """Worker counts of one version of a model, as reported by the management API."""

    name: str
    version: str
    default: bool
    min_workers: int
    max_workers: int
    ready: int


class Stack:
    """Context manager that runs the server, and nginx with the gateway if `with_front`.

    `direct` contains TorchServe's addresses; `edge` contains those of nginx if it runs, otherwise TorchServe's.

    Raises:
        ChaosError: The server or nginx does not start.
    """

    direct: Endpoints
    edge: Endpoints

    def __init__(
        self,
        run_dir: Path,
        store: Path,
        with_front: bool = True,
        environment: Mapping[str, str] | None = None,
        port_offset: int | None = None,
    ) -> None:
        """Create the stack. By default, `port_offset` is chosen so that all ports are free."""
        self.run_dir, self.store, self.with_front = run_dir.resolve(), store.resolve(), with_front
        self._port_offset = port_offset
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
        self.supervisor: subprocess.Popen[bytes] | None = None
        self.front: subprocess.Popen[bytes] | None = None
        self._open_until_stop = ExitStack()
        self._known_processes: set[psutil.Process] = set()
        self.models: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Return the live processes by role: supervisor, java, worker, front, gateway, nginx."""
        by_role: dict[str, list[psutil.Process]] = {"supervisor": [], "java": [], "worker": []}
        if self.with_front:
            by_role |= {"front": [], "gateway": [], "nginx": []}
        for role, parent in (("supervisor", self.supervisor), ("front", self.front)):
            if parent is None or parent.poll() is not None:
                continue
            process = psutil.Process(parent.pid)
            by_role[role].append(process)
            for child in _children(process):
                if kind := _role(child):
                    by_role.setdefault(kind, []).append(child)
        self._known_processes.update(process for several in by_role.values() for process in several)
        return by_role

    def orphans(self) -> list[psutil.Process]:
        """Return processes of this stack (Java, workers, nginx) that have outlived their parents."""
        known = {process for several in self.processes().values() for process in several}
        left = {process for process in self._known_processes - known if _alive(process)}
        for process in psutil.process_iter():
            if (
                process not in known
                and _role(process) in ("java", "worker")
                and _names(process, self.run_dir)
            ):
                left.add(process)
        return list(left)

    def describe(self, timeout: float = 5.0) -> list[VersionWorkers]:
        """Return the worker counts of every version of every model. Raises client.TorchServeError."""
        with Client(endpoints=self.direct, timeout=timeout, retries=0) as connection:
            versions = []
            for name in sorted(entry.name for entry in connection.list_models()):
                default = connection.describe(name).version
                for version in connection.describe_versions(name):
                    ready = sum(worker.ready for worker in version.workers)
                    versions.append(
                        VersionWorkers(
                            name,
                            version.version,
                            version.version == default,
                            version.min_workers,
                            version.max_workers,
                            ready,
                        )
                    )
        return versions

    def worker_pids(self, model: str, timeout: float = 3.0) -> list[int]:
        """Return the process ids of the default version's workers. Raises client.TorchServeError."""
        with Client(endpoints=self.direct, timeout=timeout, retries=0) as connection:
            described: Model = connection.describe(model)
        return [worker.pid for worker in described.workers if worker.pid > 0]

    def wait_described(self, expected: list[VersionWorkers], timeout: float) -> bool:
        """Wait until models, versions and worker counts are as expected; return False after `timeout` seconds."""
        end = time.monotonic() + timeout
        while True:
            try:
                if self.describe() == expected:
                    return True
            except TorchServeError:
                pass
            if time.monotonic() > end:
                return False
            time.sleep(0.25)

    def stop(self) -> None:
        """End all processes of the stack. May be called twice."""
        for process in [*self._all(), *self.orphans()]:
            _send(process, signal.SIGCONT)
        for parent in (self.front, self.supervisor):
            if parent is not None and parent.poll() is None:
                parent.terminate()
                try:
                    parent.wait(STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    for process in self._all():
                        _send(process, signal.SIGKILL)
                    parent.wait(10)
        left = self.orphans()
        for process in left:
            _send(process, signal.SIGKILL)
        psutil.wait_procs(left, timeout=5)
        self._open_until_stop.close()

    def _all(self) -> list[psutil.Process]:
        return [process for several in self.processes().values() for process in several]

    def _start(self) -> None:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.store.mkdir(parents=True, exist_ok=True)
        line = ["serve", "--weights", "starter", "--store", str(self.store)]
        try:
            offset = free_offset() if self._port_offset is None else self._port_offset
        except AssertionError as error:
            raise ChaosError(str(error)) from error
        line += ["--run-dir", str(self.run_dir), "--port-offset", str(offset)]
        self.supervisor = self._spawn(line, "serve.log")
        state = self._wait_ready(self.supervisor)
        self.direct = self.edge = state.endpoints
        self.models = state.models
        if self.with_front:
            if shutil.which("nginx", path="/usr/sbin:" + os.environ["PATH"]) is None:
                raise ChaosError("nginx is not installed")
            http, grpc = (port_of(self._open_until_stop.enter_context(reserve_port())) for _ in range(2))
            line = ["gateway", "--port", str(http), "--grpc-port", str(grpc)]
            self.front = self._spawn([*line, "--run-dir", str(self.run_dir)], "front.log")
            self._wait_listening(self.front, http)
            self.edge = replace(
                self.direct, inference=f"http://127.0.0.1:{http}", grpc_inference=f"127.0.0.1:{grpc}"
            )

    def _spawn(self, arguments: list[str], log: str) -> "subprocess.Popen[bytes]":
        output = self._open_until_stop.enter_context(open(self.run_dir / log, "ab"))  # noqa: SIM115
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "torchserve_models", *arguments],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _wait_ready(self, process: "subprocess.Popen[bytes]") -> RunState:
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end and process.poll() is None:
            state = RunState.read(RunDir(self.run_dir).state)
            if state and state.phase == "ready" and state.supervisor.pid == process.pid:
                return state
            time.sleep(0.2)
        raise ChaosError(f"the server did not start; its log: {self.run_dir / 'serve.log'}")

    def _wait_listening(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise ChaosError(f"nginx did not start; its log: {self.run_dir / 'front.log'}")


def send_signal(process: psutil.Process, number: int) -> bool:
    """Send a signal; return False if the process has ended."""
    return _send(process, number)


def _send(process: psutil.Process, number: int) -> bool:
    try:
        process.send_signal(number)
    except psutil.Error:
        return False
    return True


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [child for child in process.children(recursive=True) if _alive(child)]
    except psutil.Error:
        return []


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _role(process: psutil.Process) -> str | None:
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return None
    if "org.pytorch.serve.ModelServer" in line:
        return "java"
    if "model_service_worker.py" in line:
        return "worker"
    if "nginx" in line.split(" ", 1)[0]:
        return None if "cache loader" in line else "nginx"  # the cache loader ends after a minute
    return "gateway" if "-m torchserve_models gateway-app" in line else None


def _names(process: psutil.Process, folder: Path) -> bool:
    try:
        return any(str(folder) in argument for argument in process.cmdline())
    except psutil.Error:
        return False
