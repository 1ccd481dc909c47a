"""What the supervisor of nginx and the gateway does about each problem, with pretended processes."""

import json
import signal
import socket
from typing import ClassVar

import pytest

from torchserve_models.gateway import running
from torchserve_models.gateway.managed_process import RESTART_REASONS
from torchserve_models.gateway.nginx import NginxConfig, NginxError
from torchserve_models.gateway.running import Running, StopRequest
from torchserve_models.gateway.settings import Settings
from torchserve_models.gateway.stopping import SIGNAL
from torchserve_models.serving.supervisor.backoff import Backoff


class Process:
    """Ready as soon as it was started; `problems` are found one after another."""

    events: ClassVar[list[str]] = []

    def __init__(self, name, address, probe, stop_signal):
        self.name = name
        self.is_ready = False
        self.listener = None
        self.problems = []
        self.stopped_children = 0
        self.fails = None
        self.ends_by_itself = True
        self.ended = True

    def start(self, command, environment):
        self.events.append(f"start {self.name}")
        if self.fails:
            raise self.fails
        self.is_ready, self.ended = True, False

    def problem(self):
        return self.problems.pop(0) if self.problems else None

    def kill_stopped_children(self):
        count, self.stopped_children = self.stopped_children, 0
        return count

    def kill(self):
        self.events.append(f"kill {self.name}")
        self.is_ready, self.ended = False, True

    def send(self, number):
        self.events.append(f"{number.name} {self.name}")
        self.ended = self.ended or number == signal.SIGTERM

    def ask_to_end(self):
        self.events.append(f"end {self.name}")
        self.ended = self.ended or self.ends_by_itself

    def has_ended(self):
        return self.ended

    def close(self):
        pass


@pytest.fixture
def pair(monkeypatch, tmp_path):
    """Started, with delays that are over at once."""

    def command(front, work):
        (work / "nginx.conf").write_text("events {}")
        return ["nginx"]

    monkeypatch.setattr(running, "ManagedProcess", Process)
    monkeypatch.setattr(running, "command", command)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(
        running, "_backoff", lambda: Backoff(initial_delay_s=0.0, max_delay_s=0.0, max_restarts=3)
    )
    Process.events.clear()
    anywhere = dict.fromkeys(("http", "grpc", "gateway", "internal"), "127.0.0.1:0")

    def start(**options):
        return Running(NginxConfig(**anywhere), Settings(), **options)

    return start


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "0.0.0.0",
        pytest.param("[::1]", marks=pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")),
    ],
)
def test_a_free_port_is_found_on_any_address(pair, host):
    front = running.Running(NginxConfig(http=f"{host}:0", grpc=f"{host}:0"), Settings()).front
    for address in (front.http, front.grpc):
        assert address.startswith(f"{host}:")
        assert int(address.rpartition(":")[2]) > 0


def test_each_problem_is_a_restart_that_is_counted(pair, capfd):
    with pair() as both:
        Process.events.clear()
        both.gateway.problems = ["died"]
        both.nginx.problems = ["hung"]
        both.supervise()
        both.supervise()
        assert Process.events == ["kill gateway", "kill nginx", "start gateway", "start nginx"]
        assert both.restarts == {"gateway": {"died": 1}, "nginx": {"hung": 1}}
        written = json.loads(both._state.read_text())["restarts"]
        assert written["gateway"] == dict.fromkeys(RESTART_REASONS, 0) | {"died": 1}
        assert written["nginx"] == dict.fromkeys(RESTART_REASONS, 0) | {"hung": 1}
        Process.events.clear()
        both.supervise()
        assert Process.events == []
    assert "gateway: died; it is started again in 0 s" in capfd.readouterr().err


def test_a_start_that_fails_is_tried_again_until_the_limit(pair):
    with pair() as both:
        both.nginx.problems = ["died"]
        both.nginx.fails = OSError("no memory")
        for _ in range(3):
            both.supervise()
        with pytest.raises(NginxError, match="nginx fails again and again"):
            both.supervise()
        assert both.restarts["nginx"] == {"died": 1, "not started": 2}


def test_a_gateway_that_never_starts_does_not_end_nginx(pair):
    with pair() as both:
        both.gateway.problems = ["died"]
        both.gateway.fails = OSError("no memory")
        for _ in range(10):
            both.supervise()
        assert both.restarts["gateway"]["not started"] >= 3


def test_stopped_workers_are_counted_and_nothing_is_restarted(pair):
    with pair() as both:
        Process.events.clear()
        both.nginx.stopped_children = 2
        both.supervise()
        assert Process.events == []
        assert both.restarts["nginx"] == {"worker stopped": 2}


def test_nginx_ends_first(pair):
    with pair():
        Process.events.clear()
    ends = [event for event in Process.events if event.startswith("end")]
    assert ends == ["end nginx", "end gateway"]
    assert f"{SIGNAL.name} gateway" not in Process.events  # there is no drain delay


def test_readiness_is_false_before_the_drain_delay(pair):
    with pair(drain_delay_s=0.01):
        Process.events.clear()
    assert Process.events[:2] == [f"{SIGNAL.name} gateway", "end nginx"]


def test_balancers_have_the_drain_delay_while_the_gateway_is_started_again_too(pair, monkeypatch):
    with pair(drain_delay_s=7) as both:
        slept = []
        monkeypatch.setattr(both, "_sleep", slept.append)
        both.gateway.is_ready = False
        Process.events.clear()
    assert slept == [7]
    # Requests are refused then, as no gateway will take them.
    assert Process.events[0] == "kill gateway"
    assert both.gateway.listener.fileno() == -1


def test_stopping_twice_is_stopping_once(pair):
    with pair(drain_delay_s=0.01) as both:
        both.stop()
        Process.events.clear()
    assert Process.events == []


def test_what_does_not_end_within_the_grace_is_cut_off(pair):
    with pair(grace_s=0.1) as both:
        both.nginx.ends_by_itself = False
        Process.events.clear()
    assert Process.events[:2] == ["end nginx", "SIGTERM nginx"]


def test_a_second_signal_does_not_wait(pair):
    stop = StopRequest()
    with pair(drain_delay_s=60, grace_s=60, stop=stop) as both:
        both.nginx.ends_by_itself = False
        stop.request()
        both.watch()  # comes back
        stop.request()


def test_a_signal_while_it_starts_ends_it(pair, monkeypatch):
    monkeypatch.setattr(
        Process, "is_ready", property(lambda self: False, lambda self, value: None), raising=False
    )
    stop = StopRequest()
    stop.request()
    with pytest.raises(KeyboardInterrupt), pair(stop=stop):
        pass


def test_a_state_that_cannot_be_written_ends_nothing(pair):
    with pair() as both:
        both._state.with_suffix(".new").mkdir()
        both.nginx.problems = ["died"]
        both.supervise()
        assert both.restarts["nginx"] == {"died": 1}


def test_a_removed_configuration_comes_back(pair):
    with pair() as both:
        both._config.unlink()
        both.supervise()
        assert both._config.read_text() == "events {}"
        assert both._config.stat().st_mode & 0o777 == 0o600
