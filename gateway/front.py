"""scripts/gateway: the gateway and nginx in front of a TorchServe that runs, until Ctrl-C."""

import argparse
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from client import Endpoints
from gateway.__main__ import add_models
from gateway.nginx import Front, NginxError, Tls, command
from gateway.settings import Settings
from serving.rundir import DEFAULT, RunDir
from serving.state import State

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 20.0  # seconds for the start of each
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Running:
    """Both processes and their folder: started in `with`, ended after it. Raises NginxError."""

    def __init__(self, front: Front, settings: Settings) -> None:
        self.front = replace(
            front,
            http=_free(front.http),
            grpc=_free(front.grpc),
            gateway=_free(front.gateway),
            image_model=settings.image_model,
        )
        self._settings = settings
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        # Not in the run folder, which nginx's workers, of another user where root starts it, may not enter.
        self._work = Path(tempfile.mkdtemp(prefix="nginx-"))
        self._work.chmod(0o755)
        try:
            nginx = command(self.front, self._work)
            self._start(self._gateway(), self.front.gateway)
            self._start(nginx, self.front.http)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"{'https' if self.front.tls else 'http'}://{self.front.http}"

    def watch(self) -> None:
        """Until one of them ends, which raises NginxError."""
        while all(process.poll() is None for process in self._processes):
            time.sleep(0.2)
        raise NginxError("nginx or the gateway ended by itself; what it said stands above")

    def stop(self) -> None:
        """nginx first, which answers what it has begun; twice does no harm."""
        for process in reversed(self._processes):
            process.send_signal(signal.SIGQUIT if process is not self._processes[0] else signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.terminate()
                try:
                    process.wait(3)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self._processes.clear()
        shutil.rmtree(self._work, ignore_errors=True)

    def _gateway(self) -> list[str]:
        at, settings = self.front.endpoints, self._settings
        line = [sys.executable, "-P", "-m", "gateway", "--listen", self.front.gateway]
        line += ["--inference", at.inference, "--management", at.management]
        line += ["--health", at.health]
        line += ["--image-model", settings.image_model]
        return line + [f"--summarizer={key}={name}" for key, name in settings.summarizers.items()]

    def _start(self, line: Sequence[str], address: str) -> None:
        """Comes back when something listens there, which nothing did before."""
        if _listens(address):
            raise NginxError(f"{address} is taken")
        process = subprocess.Popen(
            line,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C is for us
            preexec_fn=_end_with_parent,
        )
        self._processes.append(process)
        end = time.monotonic() + PATIENCE
        while not _listens(address):
            if process.poll() is not None or time.monotonic() > end:
                raise NginxError(
                    f"{Path(line[0]).name} does not listen on {address}; its reason stands above"
                )
            time.sleep(0.05)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 ended by a signal, 1 failed, 2 wrong command line."""
    options = _parser().parse_args(arguments)
    default = Settings()
    front = Front(
        http=_address(options.host, options.port),
        grpc=_address(options.host, options.grpc_port),
        gateway=_address("127.0.0.1", options.gateway_port),
        endpoints=_endpoints(options.run_dir),
        others=tuple(options.upstream),
        tls=Tls(*options.tls) if options.tls else None,
        open_management=options.open_management,
        rate=options.rate,
        burst=options.burst,
        access_log="/dev/stdout requests" if options.access_log else "off",
    )
    settings = Settings(
        image_model=options.image_model, summarizers=dict(options.summarizer or default.summarizers)
    )
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        with Running(front, settings) as running:
            behind = front.endpoints.inference
            print(f"REST {running.url}, gRPC {running.front.grpc}, in front of {behind}.")
            print(f"The API's documents: {running.url}/docs. Ctrl-C ends it.", flush=True)
            running.watch()
    except KeyboardInterrupt:
        return 0
    except (NginxError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _endpoints(run_dir: Path) -> Endpoints:
    """Of the server that runs there; without one, TorchServe's own ports, for when it comes."""
    state = State.read(RunDir(run_dir.resolve()).state)
    return state.endpoints if state else Endpoints()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    """Runs in the child: when we are killed, the kernel sends it a SIGTERM."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port)


def _listens(address: str) -> bool:
    try:
        socket.create_connection(_parts(address), 1.0).close()
    except OSError:
        return False
    return True


def _free(address: str) -> str:
    """The same; with the port 0, one that is free now."""
    host, port = _parts(address)
    if port:
        return address
    with socket.create_server((host, 0)) as found:
        return _address(host, found.getsockname()[1])


def _upstream(text: str) -> tuple[str, str]:
    parts = text.rsplit(":", 2)
    if len(parts) != 3 or not all(part.isdecimal() for part in parts[1:]):
        raise argparse.ArgumentTypeError(f"expected HOST:PORT:GRPC_PORT, not {text!r}")
    return f"{parts[0]}:{parts[1]}", f"{parts[0]}:{parts[2]}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/gateway",
        description="nginx in front of a running server: REST and gRPC, limits, TLS, the routes that people know.",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="listen there; 0.0.0.0 for all"
    )
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="REST; 8000")
    parser.add_argument("--grpc-port", type=int, default=7000, metavar="N", help="gRPC; 7000")
    parser.add_argument("--gateway-port", type=int, default=0, metavar="N", help="inner; a free one")
    parser.add_argument("--tls", nargs=2, type=Path, metavar=("CERT", "KEY"), help="PEM files, for both")
    parser.add_argument(
        "--run-dir", type=Path, default=DEFAULT, metavar="FOLDER", help="of the server; .run/"
    )
    parser.add_argument(
        "--upstream",
        action="append",
        type=_upstream,
        default=[],
        metavar="HOST:PORT:GRPC_PORT",
        help="a further TorchServe that shares the predictions; may be repeated",
    )
    parser.add_argument(
        "--open-management", action="store_true", help="/models and /metrics too: who reaches them runs code"
    )
    parser.add_argument("--rate", type=int, metavar="N", help="requests a second of one address; any number")
    parser.add_argument("--burst", type=int, default=50, metavar="N", help="above it at once; 50")
    parser.add_argument("--access-log", action="store_true", help="a line for each request on stdout")
    add_models(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
