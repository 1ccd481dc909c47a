"""Faults in a running stack: kill and stop processes, scale models, and replace versions under load."""

import json
import signal
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psutil

from tests.chaos.plan import Event
from tests.chaos.stack import Stack, send_signal
from torchserve_models import client
from torchserve_models.client import Client

MANAGEMENT_TIMEOUT_S = 90.0
PAUSE_BETWEEN_SCALES_S = 1.5
USUAL_VERSIONS = ("chaos-1", "chaos-2")
"""Versions that replace a model in turn, unless an interrupted replacement has left one of them."""


@dataclass(frozen=True)
class Fault:
    """Fault injected from `at` to `until`; `problem` is the error if the injection failed."""

    at: float
    kind: str
    action: str
    target: str
    until: float
    problem: str = ""

    @property
    def name(self) -> str:
        return f"{self.kind} {self.action} {self.target}".strip()


class Faults:
    """Injector of faults. Call `do` from one thread. Stopped processes are continued after the event's duration."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._timers: list[threading.Timer] = []
        self.done: list[Fault] = []
        self.versions: dict[str, str] = {}
        """Current version of each replaced model."""
        self._actions: dict[str, Callable[[Event], str]] = {
            "worker": self._worker,
            "java": lambda event: self._signal_role("java", event),
            "gateway": lambda event: self._signal_role("gateway", event),
            "nginx": self._nginx,
            "scale": self._scale,
            "version": self._version,
        }

    def do(self, event: Event) -> Fault:
        at = time.monotonic()
        try:
            target, problem = self._actions[event.kind](event), ""
        except (client.TorchServeError, OSError, psutil.Error, LookupError) as error:
            target, problem = event.target, f"{type(error).__name__}: {error}"
        fault = Fault(at, event.kind, event.action, target, time.monotonic(), problem)
        self.done.append(fault)
        return fault

    def close(self) -> None:
        """Continue the processes that are still stopped."""
        for timer in self._timers:
            timer.cancel()
            timer.function(*timer.args)

    def _worker(self, event: Event) -> str:
        pids = self._stack.worker_pids(event.target)
        if not pids:
            raise LookupError(f"{event.target} has no worker now")
        self._signal([psutil.Process(pids[0])], event)
        return event.target

    def _signal_role(self, role: str, event: Event) -> str:
        processes = self._stack.processes().get(role, [])
        if not processes:
            raise LookupError(f"no {role} runs now")
        self._signal(processes, event)
        return ""

    def _nginx(self, event: Event) -> str:
        """Signal nginx's master (which orphans its workers), one worker, or all processes."""
        processes = self._stack.processes().get("nginx", [])
        masters = [process for process in processes if "master" in " ".join(process.cmdline())]
        workers = [process for process in processes if process not in masters]
        chosen = {"kill-master": masters, "kill-worker": workers[:1]}.get(event.action, processes)
        if not chosen:
            raise LookupError("no nginx runs now")
        self._signal(chosen, event)
        return ""

    def _signal(self, processes: list[psutil.Process], event: Event) -> None:
        if event.action.startswith("kill"):
            for process in processes:
                send_signal(process, signal.SIGKILL)
            return
        for process in processes:
            send_signal(process, signal.SIGSTOP)
            timer = threading.Timer(event.seconds, send_signal, (process, signal.SIGCONT))
            timer.daemon = True
            timer.start()
            self._timers.append(timer)

    def _scale(self, event: Event) -> str:
        """Scale the model to two workers and back to one."""
        with Client(endpoints=self._stack.direct, timeout=MANAGEMENT_TIMEOUT_S) as connection:
            connection.scale(event.target, 2)
            time.sleep(PAUSE_BETWEEN_SCALES_S)
            connection.scale(event.target, 1)
        return event.target

    def _version(self, event: Event) -> str:
        with Client(endpoints=self._stack.direct, timeout=MANAGEMENT_TIMEOUT_S) as connection:
            self.versions[event.target] = replace_version(connection, self._stack.store, event.target)
        return event.target


def replace_version(connection: Client, store: Path, name: str) -> str:
    """Replace a model's default version by the same archive under another version.

    Versions that an interrupted replacement has left behind are removed as well.

    Returns:
        The new version.

    Raises:
        client.TorchServeError: A step failed.
    """
    old = {model.version for model in connection.describe_versions(name)}
    default = connection.describe(name).version
    new = next(version for version in map("chaos-{}".format, count(1)) if version not in old)
    connection.replace_model(name, copy_archive(store, name, new), workers=1)
    for version in sorted(old - {default}):
        connection.unregister(name, version)
    return new


def copy_archive(store: Path, name: str, version: str) -> str:
    """Copy `name`.mar under another model version, unless an up-to-date copy exists; return the file name."""
    first, target = store / f"{name}.mar", store / f"{name}.{version}.mar"
    if not target.exists() or target.stat().st_mtime < first.stat().st_mtime:
        written = target.with_suffix(".new")
        with zipfile.ZipFile(first) as source, zipfile.ZipFile(written, "w") as copy:
            for item in source.infolist():
                data = source.read(item)
                if item.filename == "MAR-INF/MANIFEST.json":
                    manifest = json.loads(data)
                    manifest["model"]["modelVersion"] = version
                    data = json.dumps(manifest).encode()
                copy.writestr(item, data)
        written.rename(target)
    return target.name
