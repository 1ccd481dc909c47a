"""A server that answers each request in a fixed time, or incorrectly, depending on the path."""

import asyncio
import threading
from contextlib import suppress

GOOD = b'[{"label": "a"}, {"label": "b"}, {"label": "c"}, {"label": "d"}, {"label": "e"}]'


class FixedRateServer:
    """A server in a thread that answers in `seconds`, up to `lanes` requests at a time."""

    def __init__(self, seconds: float, lanes: int = 1) -> None:
        self._seconds, self._lanes = seconds, lanes
        self.port = 0
        self.connections = 0
        self.received: list[bytes] = []

    def __enter__(self) -> "FixedRateServer":
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()

        async def serve() -> None:
            self._stop = asyncio.Event()
            self._free = asyncio.Semaphore(self._lanes)
            server = await asyncio.start_server(self._serve_connection, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await self._stop.wait()
            server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(serve()), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.received.append(await reader.readexactly(length))
                path = head.split(b" ")[1]
                async with self._free:
                    await asyncio.sleep(self._seconds)
                if path == b"/gone":
                    break
                writer.write(_answer(path))
                await writer.drain()
                if path == b"/close":
                    break
        writer.close()


def _answer(path: bytes) -> bytes:
    if path == b"/busy":
        return b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
    if path == b"/wrong":
        return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
    if path == b"/chunked":
        half = len(GOOD) // 2
        parts = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (GOOD[:half], GOOD[half:], b""))
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + parts
    connection = b"Connection: close\r\n" if path == b"/close" else b""
    return b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (connection, len(GOOD), GOOD)
