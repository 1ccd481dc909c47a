"""Notify systemd of the server's state: sd_notify(3) over a Unix datagram socket."""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress


class SystemdNotifier:
    """Client of sd_notify. Does nothing if `NOTIFY_SOCKET` is not set; never raises."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # an abstract socket
            self._address = "\0" + self._address[1:]
        self._watchdog_interval = _watchdog_interval(environment)
        self._next_watchdog = 0.0

    def ready(self) -> None:
        self._send("READY=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, message: str) -> None:
        self._send("STATUS=" + message.replace("\n", " "))

    def watchdog(self) -> None:
        """Report that the watch loop is alive; sends at most one notification per interval."""
        now = time.monotonic()
        if self._watchdog_interval is not None and now >= self._next_watchdog:
            self._next_watchdog = now + self._watchdog_interval
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.setblocking(False)
            connection.sendto(message.encode(errors="replace"), self._address)


def _watchdog_interval(environment: Mapping[str, str]) -> float | None:
    """Return a quarter of `WatchdogSec`, the interval that systemd allows between two notifications."""
    try:
        if int(environment.get("WATCHDOG_PID", os.getpid())) != os.getpid():
            return None
        return int(environment["WATCHDOG_USEC"]) / 1e6 / 4
    except (KeyError, ValueError):
        return None
