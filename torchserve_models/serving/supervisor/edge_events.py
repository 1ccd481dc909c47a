"""Receive nginx's reports about disconnected clients, and write files about them for the workers.

nginx logs each request that ends with 499 as a UDP syslog datagram with the text `client-left REQUEST_ID MODEL
SECONDS`. The receiver maintains two kinds of files in its folder:

- `left/REQUEST_ID`: an empty file for each such request, so that workers skip it;
- `wait/MODEL`: the seconds after which clients of that model currently disconnect.

Reports are not authenticated. Request ids are random 128-bit numbers, and a wait only makes a worker with a backlog
reject requests earlier, so a false report has little effect. The number of files and the rate are limited.
"""

import logging
import re
import socket
import threading
import time
from collections import OrderedDict, deque
from pathlib import Path

from torchserve_models.client.names import is_addressable
from torchserve_models.files import write_atomic

logger = logging.getLogger(__name__)

MAX_CLIENTS_LEFT = 10_000
CLIENT_LEFT_TTL_S = 600.0
MAX_MODELS = 200
WAIT_SAMPLES = 50
MIN_WAIT_S = 1.0
"""Minimum wait; clients that leave sooner do not show how long other clients wait."""
MIN_WAITS = 10
"""Minimum number of recently disconnected clients of a model before its wait is written."""
WAIT_QUANTILE = 0.25
WAIT_TTL_S = 60.0
MAX_DATAGRAMS_PER_S = 2_000
_MAX_DATAGRAM_BYTES = 2_048
_POLL_S = 1.0
_MESSAGE = re.compile(rb"client-left ([0-9a-f]{32}) ([!-~]{1,128}) (\d{1,6}(?:\.\d{1,6})?)\s*\Z")


class EdgeEvents:
    """Daemon thread that receives datagrams until `close`. Without it, workers also compute abandoned requests."""

    def __init__(self, directory: Path, host: str, port: int) -> None:
        """Bind the socket and create the folders. Raises OSError if this fails."""
        self._left_folder, self._wait_folder = directory / "left", directory / "wait"
        for folder in (self._left_folder, self._wait_folder):
            folder.mkdir(parents=True, exist_ok=True)
            for stale in folder.iterdir():
                stale.unlink(missing_ok=True)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.bind((host, port))
        except OSError:
            self._socket.close()
            raise
        self._socket.settimeout(_POLL_S)
        self._left: OrderedDict[str, float] = OrderedDict()
        self._waits: OrderedDict[str, deque[float]] = OrderedDict()
        self._last_wait: dict[str, float] = {}
        self._rate_start, self._rate_count = 0.0, 0
        self._next_expiry = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edge-events", daemon=True)

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._socket.getsockname()[:2]
        return host, port

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(2 * _POLL_S)
        self._socket.close()

    def receive(self, datagram: bytes, now: float | None = None) -> bool:
        """Process one datagram; return whether it was a valid report."""
        now = time.monotonic() if now is None else now
        match = _MESSAGE.search(datagram)
        if match is None or not self._is_within_rate(now):
            return False
        request_id, model, seconds = (group.decode("ascii") for group in match.groups())
        if not is_addressable(model):
            return False
        self._mark_left(request_id, now)
        self._add_wait(model, float(seconds), now)
        return True

    def expire(self, now: float | None = None) -> None:
        """Remove expired entries."""
        now = time.monotonic() if now is None else now
        while self._left and next(iter(self._left.values())) <= now - CLIENT_LEFT_TTL_S:
            self._forget_oldest()
        for model in [model for model, last in self._last_wait.items() if last <= now - WAIT_TTL_S]:
            self._forget_model(model)

    def _run(self) -> None:
        problem = None
        while not self._stopping.is_set():
            try:
                self._receive_next()
                problem = None
            except OSError as error:  # a full disk, for example; it may be over soon
                if self._stopping.is_set():
                    return
                if str(error) != problem:
                    problem = str(error)
                    logger.warning("reports of disconnected clients are not stored: %s", error)
                time.sleep(0.1)

    def _receive_next(self) -> None:
        try:
            datagram = self._socket.recv(_MAX_DATAGRAM_BYTES)
        except TimeoutError:
            datagram = b""
        now = time.monotonic()
        if now >= self._next_expiry:
            self._next_expiry = now + _POLL_S
            self.expire(now)
        if datagram:
            self.receive(datagram, now)

    def _is_within_rate(self, now: float) -> bool:
        if now - self._rate_start >= 1:
            self._rate_start, self._rate_count = now, 0
        self._rate_count += 1
        return self._rate_count <= MAX_DATAGRAMS_PER_S

    def _mark_left(self, request_id: str, now: float) -> None:
        while len(self._left) >= MAX_CLIENTS_LEFT:
            self._forget_oldest()
        (self._left_folder / request_id).touch()
        self._left[request_id] = now
        self._left.move_to_end(request_id)

    def _add_wait(self, model: str, seconds: float, now: float) -> None:
        if seconds < MIN_WAIT_S:
            return
        if model not in self._waits:
            while len(self._waits) >= MAX_MODELS:
                self._forget_model(next(iter(self._waits)))
            self._waits[model] = deque(maxlen=WAIT_SAMPLES)
        waits = self._waits[model]
        self._waits.move_to_end(model)
        waits.append(seconds)
        self._last_wait[model] = now
        if len(waits) >= MIN_WAITS:
            quantile = sorted(waits)[int(WAIT_QUANTILE * (len(waits) - 1))]
            write_atomic(self._wait_folder / model, f"{quantile:.3f}\n")

    def _forget_oldest(self) -> None:
        request_id, _ = self._left.popitem(last=False)
        (self._left_folder / request_id).unlink(missing_ok=True)

    def _forget_model(self, model: str) -> None:
        self._waits.pop(model, None)
        self._last_wait.pop(model, None)
        (self._wait_folder / model).unlink(missing_ok=True)
