"""Helpers that run nginx in front of a fake TorchServe and a fake gateway, which record their requests."""

import asyncio
import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import psutil

from tests.tools import needs
from torchserve_models.client import Endpoints
from torchserve_models.gateway.nginx.config import NginxConfig
from torchserve_models.gateway.nginx.executable import start_command
from torchserve_models.gateway.nginx.work_dir import WorkDir
from torchserve_models.gateway.supervision.addresses import reserve_ports

needs_nginx = needs("nginx")


@dataclass
class Received:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """The response to a request, after `seconds` and after `release` is set (for at most 60 s).

    `status` 0 closes the connection without a response.
    """

    status: int = 200
    body: bytes = b"ok"
    seconds: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    release: threading.Event | None = None


class FakeServer:
    """A small HTTP/1.1 server in a thread. `answer` returns the responses; `received` lists the requests in order."""

    def __init__(self, answer: Callable[[Received], Answer] | None = None) -> None:
        self.answer = answer or (lambda request: Answer(body=str(len(request.body)).encode()))
        self.received: list[Received] = []
        self.in_progress = self.most_in_progress = 0
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "FakeServer":
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=2048)
        )
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._started.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = lines[0].split(" ", 2)
                headers = {
                    name.lower(): value
                    for name, _, value in (line.partition(": ") for line in lines[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                request = Received(method, target, headers, body)
                self.received.append(replace(request, body=body[:200]))
                self.in_progress += 1
                self.most_in_progress = max(self.most_in_progress, self.in_progress)
                try:
                    answer = self.answer(request)
                    await asyncio.sleep(answer.seconds)
                    if answer.release is not None and not answer.release.is_set():
                        await asyncio.to_thread(answer.release.wait, 60)
                finally:
                    self.in_progress -= 1
                if not answer.status:
                    break
                head = f"HTTP/1.1 {answer.status} X\r\nContent-Length: {len(answer.body)}\r\n"
                head += "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
                writer.write(head.encode() + b"\r\n" + answer.body)
                await writer.drain()
        writer.close()


@dataclass
class Edge:
    """A running nginx. `url` is the address of its REST API."""

    config: NginxConfig
    process: subprocess.Popen[bytes]
    folder: WorkDir

    @property
    def url(self) -> str:
        return f"http://{self.config.http}"

    def memory(self) -> int:
        """Return the unshared memory (USS) of all nginx processes in bytes."""
        family = [psutil.Process(self.process.pid)]
        family += family[0].children(recursive=True)
        return sum(process.memory_full_info().uss for process in family)


@contextlib.contextmanager
def edge(torchserve: FakeServer, gateway: FakeServer | None = None, **changes: object) -> Iterator[Edge]:
    """Run nginx on free ports; `changes` are fields of its NginxConfig."""
    with contextlib.ExitStack() as stack:
        http, grpc, internal = reserve_ports(stack, *["127.0.0.1:0"] * 3)
        defaults = {
            "http": http,
            "grpc": grpc,
            "internal": internal,
            "gateway": gateway.address if gateway else "127.0.0.1:1",
            "endpoints": Endpoints(inference=f"http://{torchserve.address}", health="http://127.0.0.1:9"),
        }
        config = NginxConfig(**{**defaults, **changes})  # type: ignore[arg-type]
        folder = WorkDir()
        stack.callback(folder.remove)
        process = stack.enter_context(
            subprocess.Popen(start_command(config, folder.path), stderr=subprocess.DEVNULL)
        )
        stack.callback(process.terminate)
        end = time.monotonic() + 10
        while not listens(config.http):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.02)
        yield Edge(config, process, folder)


def listens(at: str) -> bool:
    try:
        socket.create_connection(address(f"http://{at}"), 1).close()
    except OSError:
        return False
    return True


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port
