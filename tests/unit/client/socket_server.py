"""A server of raw sockets, and calls of a client to it."""

import socket
import threading
from contextlib import contextmanager

from torchserve_models.client import Endpoints


def classify(client):
    return client.classify("images", b"x")


def scale(client):
    return client.scale("images", 1, force=True)


@contextmanager
def socket_server(serve):
    """Call `serve(connection)` in a thread for each connection; yield the endpoints and the connections."""
    listener = socket.create_server(("127.0.0.1", 0))
    accepted = []

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            accepted.append(connection)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    port = listener.getsockname()[1]
    try:
        yield (
            Endpoints.at(
                inference_port=port,
                management_port=port,
                metrics_port=port,
                grpc_port=port,
                grpc_management_port=port,
            ),
            accepted,
        )
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in accepted:
            connection.close()
