"""Tests of reports about disconnected clients: stored files, expiry, and invalid reports."""

import socket
import time

import pytest

from handlers.core.disconnect_events import DisconnectEventsReader
from torchserve_models.serving.supervisor import edge_events
from torchserve_models.serving.supervisor.edge_events import EdgeEvents

ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def events(tmp_path):
    events = EdgeEvents(tmp_path, "127.0.0.1", 0)
    yield events
    events.close()


def report(number=0, model="t5-small", seconds="5.001"):
    return b"<190>Nov 29 17:00:00 host nginx: client-left %032x %s %s" % (
        number,
        model.encode(),
        seconds.encode(),
    )


def test_disconnects_and_waits_are_written_for_workers(events, tmp_path):
    reader = DisconnectEventsReader(tmp_path, "t5-small")
    assert not reader.has_disconnected(f"{1:032x}")
    for number in range(10):
        assert events.receive(report(number, seconds=f"{5 + number // 3:.3f}"))
    assert reader.has_disconnected(f"{1:032x}")
    assert reader.wait_s() == 5.0
    assert DisconnectEventsReader(tmp_path, "resnet-50").wait_s() is None


def test_few_disconnects_do_not_set_a_wait(events, tmp_path):
    for number in range(9):
        events.receive(report(number))
    assert DisconnectEventsReader(tmp_path, "t5-small").wait_s() is None


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\xff" * 2048,
        b"client-left",
        b"client-left " + ID.upper().encode() + b" t5 5.0",
        b"client-left " + ID[1:].encode() + b" t5 5.0",
        b"client-left ../../../../etc/passwd t5 5.0",
        b"client-left " + ID.encode() + b" ../t5 5.0",
        b"client-left " + ID.encode() + b" .. 5.0",
        b"client-left " + ID.encode() + b" a b 5.0",
        b"client-left " + ID.encode() + b" \xc3\xa9 5.0",
        b"client-left " + ID.encode() + b" a/b 5.0",
        b"client-left " + ID.encode() + b" t5 nan",
        b"client-left " + ID.encode() + b" t5 -1",
        b"client-left " + ID.encode() + b" t5 1e9",
        b"client-left " + ID.encode() + b" t5 5.0\nclient-left",
        b"client-left " + ID.encode() + b" " + b"m" * 129 + b" 5.0",
    ],
    ids=lambda datagram: datagram[:40].decode("latin-1"),
)
def test_other_datagrams_are_ignored(events, tmp_path, datagram):
    assert not events.receive(datagram)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["left", "wait"]


def test_reports_expire(events, tmp_path):
    for number in range(6):
        events.receive(report(number), now=100.0)
    events.expire(100.0 + edge_events.WAIT_TTL_S)
    assert DisconnectEventsReader(tmp_path, "t5-small").wait_s() is None
    assert len(list((tmp_path / "left").iterdir())) == 6
    events.expire(100.0 + edge_events.CLIENT_LEFT_TTL_S)
    assert list((tmp_path / "left").iterdir()) == []


def test_files_and_rate_are_bounded(events, tmp_path, monkeypatch):
    monkeypatch.setattr(edge_events, "MAX_CLIENTS_LEFT", 10)
    monkeypatch.setattr(edge_events, "MAX_MODELS", 3)
    monkeypatch.setattr(edge_events, "MAX_DATAGRAMS_PER_S", 60)
    taken = [events.receive(report(number, f"m{number % 7}"), now=1.0) for number in range(100)]
    assert sum(taken) == 60
    assert len(list((tmp_path / "left").iterdir())) == 10
    assert len(list((tmp_path / "wait").iterdir())) <= 3
    assert events.receive(report(), now=2.5)


def test_datagrams_arrive_and_garbage_does_not_end_the_thread(events, tmp_path):
    events.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in (b"garbage", b"x" * 5000, report(7)):
            sender.sendto(datagram, events.address)
    end = time.monotonic() + 10
    while not DisconnectEventsReader(tmp_path, "m").has_disconnected(f"{7:032x}"):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_unwritable_folder_does_not_end_the_thread(events, tmp_path):
    (tmp_path / "left").rmdir()
    events.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(report(1), events.address)
        time.sleep(0.3)
        (tmp_path / "left").mkdir()
        end = time.monotonic() + 10
        while not (tmp_path / "left" / f"{2:032x}").exists():
            assert time.monotonic() < end
            sender.sendto(report(2), events.address)
            time.sleep(0.05)


def test_files_of_an_earlier_run_are_removed(tmp_path):
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / ID).touch()
    EdgeEvents(tmp_path, "127.0.0.1", 0).close()
    assert not DisconnectEventsReader(tmp_path, "m").has_disconnected(ID)
