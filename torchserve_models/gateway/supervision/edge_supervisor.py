"""Start the gateway and nginx, supervise both, and stop them without losing requests."""

import contextlib
import json
import os
import secrets
import signal
import sys
import time
from collections import Counter
from dataclasses import replace
from types import TracebackType
from typing import Self

from torchserve_models.backoff import Backoff
from torchserve_models.files import write_atomic
from torchserve_models.gateway.nginx.config import NginxConfig, NginxError
from torchserve_models.gateway.nginx.executable import start_command
from torchserve_models.gateway.nginx.work_dir import WorkDir
from torchserve_models.gateway.settings import GatewaySettings
from torchserve_models.gateway.shutdown import DRAIN_SIGNAL
from torchserve_models.gateway.supervision.addresses import is_listening, listen, reserve_ports
from torchserve_models.gateway.supervision.managed_process import RESTART_REASONS, ManagedProcess
from torchserve_models.gateway.supervision.stop_request import StopRequest
from torchserve_models.paths import ROOT

GATEWAY_PROBE = "/livez"
NGINX_PROBE = "/edge/nginx"
"""A path to which nginx responds itself, independent of the gateway and TorchServe."""
GATEWAY_GRACE_S = 10.0
MAX_RESTART_DELAY_S = 60.0
CHECK_INTERVAL_S = 0.1
MAX_LISTEN_DELAY_S = 4.0
"""The gateway's port stays open until its restart only if the restart delay is at most this long."""


class EdgeSupervisor:
    """A context manager that starts both processes and stops them at the end. Raises NginxError."""

    def __init__(
        self,
        config: NginxConfig,
        settings: GatewaySettings,
        *,
        drain_delay_s: float = 0.0,
        grace_s: float = 5.0,
        stop: StopRequest | None = None,
    ) -> None:
        """
        Args:
            config: nginx's configuration. Port 0 is replaced by a free port, which stays reserved until the end.
            settings: The gateway's settings.
            drain_delay_s: Seconds for which new requests are accepted after readiness has become false.
            grace_s: Seconds that requests in progress may then take before their connections are closed.
            stop: The request to stop, which a signal handler may set.
        """
        with contextlib.ExitStack() as reservations:
            at = config.http, config.grpc, config.gateway, config.gateway_grpc, config.internal, "127.0.0.1:0"
            http, grpc, gateway, gateway_grpc, internal, uncached = reserve_ports(reservations, *at)
            self._reservations = reservations.pop_all()
        self.config = replace(
            config,
            http=http,
            grpc=grpc,
            gateway=gateway,
            gateway_grpc=gateway_grpc,
            internal=internal,
            uncached=uncached if settings.cache_bytes else "",
            keys=settings.key_file is not None,
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
            "gateway", self.config.gateway, (self.config.gateway, GATEWAY_PROBE), signal.SIGTERM
        )
        self.nginx = ManagedProcess(
            "nginx", self.config.http, (self.config.internal, NGINX_PROBE), signal.SIGQUIT
        )
        self._backoffs = {self.gateway: _backoff(), self.nginx: _backoff()}
        self._start_at: dict[ManagedProcess, float] = {}
        self._last_logged = ""
        self._restarts: dict[str, Counter[str]] = {"gateway": Counter(), "nginx": Counter()}

    def __enter__(self) -> Self:
        self._work = WorkDir()
        self._config_file = self._work.path / "nginx.conf"
        self._state = self._work.path / "state.json"
        try:
            # nginx would share the port with the other program, and half of the connections would be lost.
            if is_listening(self.config.grpc):
                raise NginxError(f"the address {self.config.grpc} is already in use")
            self._config_file.touch(0o600)  # it contains the gateway's key
            self._nginx_command = start_command(self.config, self._work.path)
            self._config_text = self._config_file.read_bytes()
            for process in (self.gateway, self.nginx):
                self._start(process)
                self._wait_until_ready(process)
            self._write_state()
        except BaseException:
            self._stop_both(0.0)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"{'https' if self.config.tls else 'http'}://{self.config.http}"

    @property
    def restarts(self) -> dict[str, dict[str, int]]:
        """The number of restarts, by process and reason."""
        return {name: dict(reasons) for name, reasons in self._restarts.items()}

    def watch(self) -> None:
        """Supervise both processes until the stop request. Raises NginxError if nginx keeps failing."""
        while not self._stop.requested:
            self.supervise()
            time.sleep(CHECK_INTERVAL_S)

    def supervise(self) -> None:
        """Check both processes once, and restart those that died, are stopped or hang."""
        self._restore_work()
        for process in (self.gateway, self.nginx):
            if process in self._start_at:
                if time.monotonic() >= self._start_at[process]:
                    del self._start_at[process]
                    self._try_start(process)
            elif problem := process.problem():
                self._schedule_restart(process, problem)
            elif killed := process.kill_stopped_children():
                self._count(process, "worker stopped", killed)
                log(f"{process.name}: killed a stopped worker process, so that nginx replaces it")

    def stop(self) -> None:
        """Report "not ready", wait for the drain delay, then stop both processes. A second call does nothing."""
        if self._is_stopped:
            return
        self._is_stopped = True
        if self.gateway.is_ready:
            self.gateway.send(
                DRAIN_SIGNAL
            )  # also ends streams of the gRPC health service, for which nginx would wait
        elif self._drain_delay_s > 0 and self.gateway.listener is not None:
            # No gateway will accept the waiting connections.
            self.gateway.kill()
            self.gateway.listener.close()
        self._sleep(self._drain_delay_s)
        self._stop_both(self._grace_s)

    def _stop_both(self, grace_s: float) -> None:
        self.nginx.request_stop()
        deadline = time.monotonic() + grace_s
        while not self.nginx.has_exited() and time.monotonic() < deadline and not self._stop.now:
            time.sleep(0.05)
        if not self.nginx.has_exited():
            self.nginx.send(signal.SIGTERM)
            self._wait_for_exit(self.nginx, 3.0)
        self.nginx.kill()
        if self.gateway.listener is not None:
            self.gateway.listener.close()
        self.gateway.request_stop()
        self._wait_for_exit(self.gateway, GATEWAY_GRACE_S)
        self.gateway.kill()
        for process in (self.gateway, self.nginx):
            process.close()
        self._reservations.close()
        self._work.remove()

    def _start(self, process: ManagedProcess) -> None:
        environment = {"PYTHONPATH": str(ROOT)}
        if process is self.gateway:
            if process.listener is None or process.listener.fileno() < 0:
                process.listener = listen(self.config.gateway)
            process.start(self._gateway_command(), environment | {"GATEWAY_KEY": self.config.gateway_key})
        else:
            process.start(self._nginx_command, environment)

    def _wait_until_ready(self, process: ManagedProcess) -> None:
        while not process.is_ready:
            if self._stop.requested:
                raise KeyboardInterrupt
            if process.problem():
                raise NginxError(f"{process.name} failed to start; see its output above")
            time.sleep(0.05)

    def _try_start(self, process: ManagedProcess) -> None:
        try:
            self._start(process)
        except (NginxError, OSError) as error:
            log(f"cannot start {process.name}: {error}")
            self._schedule_restart(process, "not started")

    def _schedule_restart(self, process: ManagedProcess, problem: str) -> None:
        process.kill()
        delay_s = self._backoffs[process].next_delay()
        if delay_s is None and process is self.gateway:
            delay_s = MAX_RESTART_DELAY_S  # nginx still serves predictions without it
        if delay_s is None:
            raise NginxError(f"{process.name} keeps failing ({problem}); it will not be restarted again")
        self._count(process, problem)
        log(f"{process.name}: {problem}; restarting it in {delay_s:g} s")
        self._start_at[process] = time.monotonic() + delay_s
        if process.listener is not None and delay_s > MAX_LISTEN_DELAY_S:
            process.listener.close()  # refuse connections instead of letting them wait

    def _count(self, process: ManagedProcess, reason: str, count: int = 1) -> None:
        self._restarts[process.name][reason] += count
        self._write_state()

    def _write_state(self) -> None:
        """Write the restart counts for gateway/metrics.py.

        Counts of zero are included, because PromQL's rate() misses the first event of a series that begins at 1.
        """
        with contextlib.suppress(OSError):  # such as a full disk; the next restart writes the file again
            counts = {
                name: {reason: reasons[reason] for reason in RESTART_REASONS}
                for name, reasons in self._restarts.items()
            }
            write_atomic(self._state, json.dumps({"restarts": counts}))

    def _restore_work(self) -> None:
        """Create nginx's directories and configuration again if a cleaner of temporary files removed them."""
        try:
            self._work.restore()
            if not self._config_file.exists():
                self._config_file.touch(0o600)
                self._config_file.write_bytes(self._config_text)
                self._write_state()
                log(f"{self._work.path}: restored nginx's working directory, which was removed")
        except OSError as error:
            self._log_once(f"{self._work.path}: cannot restore nginx's working directory: {error}")

    def _log_once(self, text: str) -> None:
        if text != self._last_logged:
            self._last_logged = text
            log(text)

    def _gateway_command(self) -> list[str]:
        at, settings = self.config.endpoints, self._settings
        assert self.gateway.listener is not None
        line = [
            sys.executable,
            "-P",
            "-m",
            "torchserve_models",
            "gateway-app",
            "--listen",
            self.config.gateway,
        ]
        line += [
            "--listen-fd",
            str(self.gateway.listener.fileno()),
            "--grpc-listen",
            self.config.gateway_grpc,
        ]
        line += ["--inference", at.inference, "--management", at.management, "--health", at.health]
        line += [f"--upstream=http://{address}" for address in self.config.others]
        line += ["--state-file", str(self._state), "--image-model", settings.image_model]
        line += [f"--route-model={route}={name}" for route, name in settings.route_models.items()]
        if settings.key_file is not None:
            line += ["--keys", str(settings.key_file)]
        if settings.cache_bytes:
            line += [f"--cache-size={settings.cache_bytes}", f"--cache-ttl={settings.cache_ttl_s:g}"]
            line += [f"--cache-check-timeout={settings.cache_check_timeout_s:g}"]
            line += ["--uncached", f"http://{self.config.uncached}"]
        return line + [f"--summarizer={key}={name}" for key, name in settings.summarizers.items()]

    def _sleep(self, seconds: float) -> None:
        """Sleep, but no longer than until the second stop request."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._stop.now:
            time.sleep(CHECK_INTERVAL_S)

    def _wait_for_exit(self, process: ManagedProcess, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not process.has_exited() and time.monotonic() < deadline:
            time.sleep(0.05)


def log(text: str) -> None:
    """Write a line to stderr. Errors are ignored: a failure to log must not stop the supervision."""
    with contextlib.suppress(OSError, ValueError):
        os.write(2, f"gateway: {text}\n".encode(errors="replace"))


def _backoff() -> Backoff:
    return Backoff(initial_delay_s=0.5, max_delay_s=MAX_RESTART_DELAY_S, stable_s=60.0, max_restarts=10)
