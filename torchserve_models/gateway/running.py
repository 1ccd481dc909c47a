"""The gateway and nginx as a pair: started, supervised, and ended without losing requests."""

import contextlib
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections import Counter
from dataclasses import replace
from types import TracebackType
from typing import Self

from torchserve_models.gateway.managed_process import RESTART_REASONS, ManagedProcess, listens, parts
from torchserve_models.gateway.nginx import NginxConfig, NginxError, command
from torchserve_models.gateway.settings import Settings
from torchserve_models.gateway.stopping import SIGNAL as NOT_READY
from torchserve_models.gateway.work_folder import WorkFolder
from torchserve_models.paths import ROOT
from torchserve_models.serving.supervisor.backoff import Backoff

GATEWAY_PROBE = "/livez"
NGINX_PROBE = "/edge/nginx"
"""Answered by nginx itself, whatever the gateway and TorchServe do."""
GATEWAY_GRACE_S = 10.0
LONGEST_DELAY_S = 60.0
TICK_S = 0.1
LONGEST_HELD_S = 4.0
"""A gateway that is started again later than this no longer has its port kept open."""
BACKLOG = 1024
"""Connections that may wait while the gateway is started again."""


class StopRequest:
    """Set by signals: the first asks to end, the second to end now. Plain values, safe in a signal handler."""

    def __init__(self) -> None:
        self.requested = False
        self.now = False

    def request(self) -> None:
        self.now = self.requested
        self.requested = True


class Running:
    """Both processes and their folder: started in `with`, ended after it. Raises NginxError."""

    def __init__(
        self,
        front: NginxConfig,
        settings: Settings,
        *,
        drain_delay_s: float = 0.0,
        grace_s: float = 5.0,
        stop: StopRequest | None = None,
    ) -> None:
        """
        Args:
            drain_delay_s: How long requests are still taken after readiness has become false.
            grace_s: How long requests in progress may take then, before their connections are cut.
        """
        self.front = replace(
            front,
            http=_free(front.http),
            grpc=_free(front.grpc),
            gateway=_free(front.gateway),
            internal=_free(front.internal),
            gateway_key=secrets.token_hex(16),
            image_model=settings.image_model,
            route_models=settings.route_models,
        )
        self._settings = settings
        self._drain_delay_s = drain_delay_s
        self._grace_s = grace_s
        self._stop = stop or StopRequest()
        self._is_stopped = False
        self.gateway = ManagedProcess(
            "gateway", self.front.gateway, (self.front.gateway, GATEWAY_PROBE), signal.SIGTERM
        )
        self.nginx = ManagedProcess(
            "nginx", self.front.http, (self.front.internal, NGINX_PROBE), signal.SIGQUIT
        )
        self._backoffs = {self.gateway: _backoff(), self.nginx: _backoff()}
        self._start_at: dict[ManagedProcess, float] = {}
        self._said = ""
        self._restarts: dict[str, Counter[str]] = {"gateway": Counter(), "nginx": Counter()}

    def __enter__(self) -> Self:
        self._work = WorkFolder()
        self._config = self._work.path / "nginx.conf"
        self._state = self._work.path / "state.json"
        try:
            if listens(
                self.front.grpc
            ):  # nginx itself would share the port, and half of the connections be lost
                raise NginxError(f"{self.front.grpc} is taken")
            self._config.touch(0o600)  # it holds the gateway's key
            self._nginx_command = command(self.front, self._work.path)
            self._config_text = self._config.read_bytes()
            for process in (self.gateway, self.nginx):
                self._start(process)
                self._wait_until_ready(process)
            self._write_state()
        except BaseException:
            self._end_both(0.0)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"{'https' if self.front.tls else 'http'}://{self.front.http}"

    @property
    def restarts(self) -> dict[str, dict[str, int]]:
        """By process and reason."""
        return {name: dict(reasons) for name, reasons in self._restarts.items()}

    def watch(self) -> None:
        """Supervise both until the stop request. Raises NginxError where restarting one does not help."""
        while not self._stop.requested:
            self.supervise()
            time.sleep(TICK_S)

    def supervise(self) -> None:
        """Look once at both, and start again what has died, is stopped or hangs."""
        self._restore_work()
        for process in (self.gateway, self.nginx):
            if process in self._start_at:
                if time.monotonic() >= self._start_at[process]:
                    del self._start_at[process]
                    self._try_start(process)
            elif problem := process.problem():
                self._schedule_restart(process, problem)
            elif replaced := process.kill_stopped_children():
                self._count(process, "worker stopped", replaced)
                say(f"{process.name}: a worker process was stopped; killed, so that nginx replaces it")

    def stop(self) -> None:
        """Not ready, then the drain delay, then no new requests, then the end. A second call does nothing."""
        if self._is_stopped:
            return
        self._is_stopped = True
        if self._drain_delay_s > 0:
            if self.gateway.is_ready:
                self.gateway.send(NOT_READY)
            elif self.gateway.listener is not None:  # refuse requests, for which no gateway will come
                self.gateway.kill()
                self.gateway.listener.close()
            self._sleep(self._drain_delay_s)
        self._end_both(self._grace_s)

    def _end_both(self, grace_s: float) -> None:
        self.nginx.ask_to_end()
        end = time.monotonic() + grace_s
        while not self.nginx.has_ended() and time.monotonic() < end and not self._stop.now:
            time.sleep(0.05)
        if not self.nginx.has_ended():
            self.nginx.send(signal.SIGTERM)
            self._sleep_until_end(self.nginx, 3.0)
        self.nginx.kill()
        if self.gateway.listener is not None:
            self.gateway.listener.close()
        self.gateway.ask_to_end()
        self._sleep_until_end(self.gateway, GATEWAY_GRACE_S)
        self.gateway.kill()
        for process in (self.gateway, self.nginx):
            process.close()
        self._work.remove()

    def _start(self, process: ManagedProcess) -> None:
        environment = {"PYTHONPATH": str(ROOT)}
        if process is self.gateway:
            if process.listener is None or process.listener.fileno() < 0:
                process.listener = _listen(self.front.gateway)
            process.start(self._gateway_command(), environment | {"GATEWAY_KEY": self.front.gateway_key})
        else:
            process.start(self._nginx_command, environment)

    def _wait_until_ready(self, process: ManagedProcess) -> None:
        while not process.is_ready:
            if self._stop.requested:
                raise KeyboardInterrupt
            if process.problem():
                raise NginxError(f"{process.name} does not start; the reason is in its output above")
            time.sleep(0.05)

    def _try_start(self, process: ManagedProcess) -> None:
        try:
            self._start(process)
        except (NginxError, OSError) as error:
            say(f"{process.name} cannot be started: {error}")
            self._schedule_restart(process, "not started")

    def _schedule_restart(self, process: ManagedProcess, problem: str) -> None:
        process.kill()
        delay_s = self._backoffs[process].next_delay()
        if delay_s is None and process is self.gateway:
            delay_s = LONGEST_DELAY_S  # nginx still serves predictions without it
        if delay_s is None:
            raise NginxError(f"{process.name} fails again and again ({problem}); it is not started any more")
        self._count(process, problem)
        say(f"{process.name}: {problem}; it is started again in {delay_s:g} s")
        self._start_at[process] = time.monotonic() + delay_s
        if process.listener is not None and delay_s > LONGEST_HELD_S:
            process.listener.close()  # connections are refused rather than kept waiting

    def _count(self, process: ManagedProcess, reason: str, count: int = 1) -> None:
        self._restarts[process.name][reason] += count
        self._write_state()

    def _write_state(self) -> None:
        """For gateway/metrics.py, with zeros: a rate does not see the first event of a series that begins at 1."""
        with contextlib.suppress(OSError):  # a full disk, for one; the next restart writes it again
            new = self._state.with_suffix(".new")
            counts = {
                name: {reason: reasons[reason] for reason in RESTART_REASONS}
                for name, reasons in self._restarts.items()
            }
            new.write_text(json.dumps({"restarts": counts}), encoding="utf-8")
            new.replace(self._state)

    def _restore_work(self) -> None:
        """Undo what cleaners of temporary folders do, for the next start of nginx too."""
        try:
            self._work.restore()
            if not self._config.exists():
                self._config.touch(0o600)
                self._config.write_bytes(self._config_text)
                self._write_state()
                say(f"{self._work.path}: something removed nginx's folder; it is back")
        except OSError as error:
            self._say_once(f"{self._work.path}: nginx's folders are missing and cannot be created: {error}")

    def _say_once(self, text: str) -> None:
        if text != self._said:
            self._said = text
            say(text)

    def _gateway_command(self) -> list[str]:
        at, settings = self.front.endpoints, self._settings
        assert self.gateway.listener is not None
        line = [sys.executable, "-P", "-m", "torchserve_models.gateway", "--listen", self.front.gateway]
        line += ["--listen-fd", str(self.gateway.listener.fileno())]
        line += ["--inference", at.inference, "--management", at.management, "--health", at.health]
        line += ["--state-file", str(self._state), "--image-model", settings.image_model]
        line += [f"--route-model={route}={name}" for route, name in settings.route_models.items()]
        return line + [f"--summarizer={key}={name}" for key, name in settings.summarizers.items()]

    def _sleep(self, seconds: float) -> None:
        """Until then, or until a second signal."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._stop.now:
            time.sleep(TICK_S)

    def _sleep_until_end(self, process: ManagedProcess, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not process.has_ended() and time.monotonic() < end:
            time.sleep(0.05)


def say(text: str) -> None:
    """Write a line to stderr. One that cannot be written must not end what it reports about."""
    with contextlib.suppress(OSError, ValueError):
        os.write(2, f"gateway: {text}\n".encode(errors="replace"))


def _backoff() -> Backoff:
    return Backoff(initial_delay_s=0.5, max_delay_s=LONGEST_DELAY_S, stable_s=60.0, max_restarts=10)


def _listen(address: str) -> socket.socket:
    """A socket that listens there. Raises NginxError."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=BACKLOG)
    except OSError as error:
        raise NginxError(f"{address} cannot be listened on: {error.strerror}") from None


def _free(address: str) -> str:
    """The same; with the port 0, one that is free now."""
    if parts(address)[1]:
        return address
    with _listen(address) as found:
        return f"{address.rpartition(':')[0]}:{found.getsockname()[1]}"
