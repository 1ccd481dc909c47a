"""A fake of a model with a short queue: one worker takes batches, and a full queue is answered with 503."""

import json
import threading
import time
from concurrent.futures import Future
from queue import Full, Queue

import httpx

from tests.unit.client.fake_torchserve import NO_WORKER

REFUSED = {"code": 503, "type": "ServiceUnavailableException", "message": NO_WORKER.format("images")}


class ShortQueue:
    """A model with a short queue that answers each request with one label, the body of the request.

    Attributes:
        sent: Number of requests.
        refused: Number of requests that were rejected because of a full queue.
        most: Maximum number of concurrent requests.
        retry_after: `Retry-After` header of a rejection; None to send no such header.
        refusing: Whether every request is rejected.
    """

    def __init__(self, queue_size=4, batch_size=4, seconds=0.004, retry_after=None):
        self.sent = self.refused = self.most = self.in_progress = 0
        self.batch_size, self.seconds, self.retry_after = batch_size, seconds, retry_after
        self.refusing = False
        self.times: list[float] = []
        self._queue: Queue = Queue(queue_size)
        self._lock = threading.Lock()
        self._worker = threading.Thread(target=self._work, daemon=True)
        self._worker.start()

    def close(self):
        self._queue.put(None)
        self._worker.join()

    def answer(self, request):
        """Answer a request of the sync client."""
        outcome = self._accept(request)
        return outcome if isinstance(outcome, httpx.Response) else self._finish(outcome.result())

    async def answer_async(self, request):
        import asyncio

        outcome = self._accept(request)
        if isinstance(outcome, httpx.Response):
            return outcome
        return self._finish(await asyncio.wrap_future(outcome))

    def _accept(self, request):
        with self._lock:
            self.sent += 1
            self.times.append(time.monotonic())
            future: Future = Future()
            try:
                if self.refusing:
                    raise Full
                self._queue.put_nowait((request.content, future))
            except Full:
                self.refused += 1
                headers = {"retry-after": self.retry_after} if self.retry_after else {}
                return httpx.Response(503, json=REFUSED, headers=headers)
            self.in_progress += 1
            self.most = max(self.most, self.in_progress)
        return future

    def _finish(self, content):
        with self._lock:
            self.in_progress -= 1
        body = json.dumps([{"label": content.decode(), "score": 1.0}])
        return httpx.Response(200, content=body.encode())

    def _work(self):
        while True:
            batch = [self._queue.get()]
            while len(batch) < self.batch_size and not self._queue.empty():
                batch.append(self._queue.get())
            if None in batch:
                return
            time.sleep(self.seconds)
            for content, future in batch:
                if future.set_running_or_notify_cancel():  # otherwise the client has disconnected
                    future.set_result(content)
