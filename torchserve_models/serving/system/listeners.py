"""Close the listening sockets of a child process, so that it accepts no new connections but finishes open ones.

TorchServe cannot stop listening without ending. On Linux 5.6 or later, a process may duplicate the sockets of its
child (pidfd_getfd) and shut them down. Most containers do not permit this; the sockets then stay open.
"""

import ctypes
import os
import platform
import socket
import sys
from collections.abc import Iterable

import psutil

_PIDFD_GETFD = 438  # the same number on every architecture since Linux 5.1


def close_listeners(pid: int, ports: Iterable[int]) -> bool:
    """Close a process's listening sockets on the given ports; return whether all were closed. Never raises."""
    if sys.platform != "linux" or platform.machine() == "alpha":
        return False
    port_set = set(ports)
    try:
        listening = [
            connection.fd
            for connection in psutil.Process(pid).net_connections(kind="tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port in port_set
        ]
        handle = os.pidfd_open(pid)
    except (OSError, psutil.Error):
        return False
    try:
        return bool(listening) and False not in [_shut_down(handle, number) for number in listening]
    finally:
        os.close(handle)


def _shut_down(process: int, number: int) -> bool:
    duplicate = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, process, number, 0)
    if duplicate < 0:
        return False
    try:
        with socket.socket(fileno=duplicate) as listener:
            listener.shutdown(socket.SHUT_RD)
    except OSError:
        return False
    return True
