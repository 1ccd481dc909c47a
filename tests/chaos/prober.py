"""Asks probe URLs at a fixed pace, in a process of its own, so that no other thread delays it; ends with its stdin.

python -m tests.chaos.prober INTERVAL URL ...; prints a JSON line for each answer:
[number of the URL, start on the monotonic clock in seconds, milliseconds, status or 0].
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
        status = _ask(connection, parts.path)
        took = time.monotonic() - started
        with lock:
            print(json.dumps([number, round(started, 4), round(1000 * took, 2), status]), flush=True)
        due = max(due + interval, time.monotonic() - interval)
        time.sleep(max(0.0, due - time.monotonic()))


def _ask(connection: http.client.HTTPConnection, path: str) -> int:
    for attempt in range(2):  # an idle connection may have been closed: then once more on a new one
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
