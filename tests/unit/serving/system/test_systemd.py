"""Tests of the notifications to systemd."""

import socket

import pytest

from torchserve_models.serving.system.systemd import SystemdNotifier


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(5)
        yield listener, str(tmp_path / "notify")


def test_every_message_arrives(manager):
    listener, path = manager
    notifier = SystemdNotifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000000"})
    notifier.ready()
    notifier.status("not ready:\nloading")
    notifier.watchdog()
    notifier.watchdog()  # too early to be sent
    notifier.stopping()
    assert [listener.recv(1000) for _ in range(4)] == [
        b"READY=1",
        b"STATUS=not ready: loading",
        b"WATCHDOG=1",
        b"STOPPING=1",
    ]


def test_abstract_socket_receives_messages(tmp_path):
    name = f"@torchserve-models-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:])
        listener.settimeout(5)
        SystemdNotifier({"NOTIFY_SOCKET": name}).ready()
        assert listener.recv(100) == b"READY=1"


def test_missing_service_manager_is_ignored(tmp_path):
    SystemdNotifier({}).ready()
    SystemdNotifier({"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "1"}).watchdog()


def test_watchdog_of_another_process_is_not_notified(manager):
    listener, path = manager
    SystemdNotifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}).watchdog()
    listener.settimeout(0.1)
    with pytest.raises(TimeoutError):
        listener.recv(100)
