"""Prober: request URLs at a fixed interval in a separate process, so that other threads cause no delay.

`python -m tests.chaos.prober INTERVAL URL ...` runs until its stdin is closed, and prints a JSON line per answer:
[index of the URL, start in `time.monotonic()` seconds, milliseconds, status or 0 without an answer].
"""

import http.client
import json
import sys
import threading
import time
from urllib.parse import urlsplit

ANSWER_TIMEOUT_S = 3.0


def main() -> int:
    interval, urls = float(sys.argv[1]), sys.argv[2:]
    lock = threading.Lock()
    for number, url in enumerate(urls):
        threading.Thread(target=_probe, args=(number, url, interval, lock), daemon=True).start()
    sys.stdin.read()
    return 0


def _probe(number: int, url: str, interval: float, lock: threading.Lock) -> None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_TIMEOUT_S)
    due = time.monotonic()
    while True:
        started = time.monotonic()
        status = _request_status(connection, parts.path)
        took = time.monotonic() - started
        with lock:
            print(json.dumps([number, round(started, 4), round(1000 * took, 2), status]), flush=True)
        due = max(due + interval, time.monotonic() - interval)
        time.sleep(max(0.0, due - time.monotonic()))


def _request_status(connection: http.client.HTTPConnection, path: str) -> int:
    for attempt in range(2):  # the server may have closed an idle connection: retry once on a new connection
        fresh = connection.sock is None
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            return response.status
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            if fresh or attempt or isinstance(error, TimeoutError):
                return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
