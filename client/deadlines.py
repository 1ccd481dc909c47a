"""How long the caller still waits, as sent along with a prediction.

The server does not begin a request whose deadline has passed: it answers 504 `DeadlineExceeded` instead of computing
for a client that has left. REST carries two headers; TorchServe's gRPC has no headers that reach a handler, so there
the same two names are keys of the input map. The Open Inference Protocol over gRPC carries gRPC's own timeout only.
"""

import time

from client.settings import is_loopback

TIMEOUT = "x-request-timeout"
"""Seconds that are left for this attempt."""

MAX_TIMEOUT_S = 1e6
"""The largest number that the server takes."""

START = "x-request-start"
"""When the attempt was sent, in Unix seconds."""


def deadline_fields(address: str, seconds_left: float) -> dict[str, str]:
    """Return the fields of one attempt.

    The start is sent to loopback addresses only: another machine's clock may differ by more than the timeout. There
    the proxy stamps the arrival, or the server counts from when the request reaches a worker.
    """
    fields = {TIMEOUT: f"{min(max(seconds_left, 0.001), MAX_TIMEOUT_S):.3f}"}
    return fields | {START: f"{time.time():.3f}"} if is_loopback(address) else fields
