"""The supervisor's reaction to each problem of nginx and the gateway, with fake processes."""

import json
import signal
import socket
from typing import ClassVar

import pytest

from torchserve_models.backoff import Backoff
from torchserve_models.gateway.nginx.config import NginxConfig, NginxError
from torchserve_models.gateway.settings import GatewaySettings
from torchserve_models.gateway.shutdown import DRAIN_SIGNAL
from torchserve_models.gateway.supervision import edge_supervisor
from torchserve_models.gateway.supervision.edge_supervisor import EdgeSupervisor
from torchserve_models.gateway.supervision.managed_process import RESTART_REASONS
from torchserve_models.gateway.supervision.stop_request import StopRequest

FREE = "127.0.0.1:0"


class FakeProcess:
    """A process that is ready at once and reports `problems` one after another."""

    events: ClassVar[list[str]] = []

    def __init__(self, name, address, probe, stop_signal):
        self.name = name
        self.is_ready = False
        self.listener = None
        self.problems = []
        self.stopped_children = 0
        self.start_error = None
        self.stops_on_request = True
        self.has_ended = True

    def start(self, command, environment):
        self.command = command
        self.events.append(f"start {self.name}")
        if self.start_error:
            raise self.start_error
        self.is_ready, self.has_ended = True, False

    def problem(self):
        return self.problems.pop(0) if self.problems else None

    def kill_stopped_children(self):
        count, self.stopped_children = self.stopped_children, 0
        return count

    def kill(self):
        self.events.append(f"kill {self.name}")
        self.is_ready, self.has_ended = False, True

    def send(self, number):
        self.events.append(f"{number.name} {self.name}")
        self.has_ended = self.has_ended or number == signal.SIGTERM

    def request_stop(self):
        self.events.append(f"end {self.name}")
        self.has_ended = self.has_ended or self.stops_on_request

    def has_exited(self):
        return self.has_ended

    def close(self):
        pass


@pytest.fixture
def start_edge(monkeypatch, tmp_path):
    """Return a function that creates the supervisor, without restart delays."""

    def start_command(config, work):
        (work / "nginx.conf").write_text("events {}")
        return ["nginx"]

    monkeypatch.setattr(edge_supervisor, "ManagedProcess", FakeProcess)
    monkeypatch.setattr(edge_supervisor, "start_command", start_command)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(
        edge_supervisor, "_backoff", lambda: Backoff(initial_delay_s=0.0, max_delay_s=0.0, max_restarts=3)
    )
    FakeProcess.events.clear()

    def start(settings=None, http=FREE, grpc=FREE, **options):
        config = NginxConfig(http=http, grpc=grpc, gateway=FREE, internal=FREE)
        return EdgeSupervisor(config, settings or GatewaySettings(), **options)

    return start


def test_response_cache_is_passed_to_gateway_and_nginx(start_edge):
    with start_edge() as edge:
        assert edge.config.uncached == ""
        assert not [option for option in edge.gateway.command if option.startswith("--cache")]
    settings = GatewaySettings(cache_bytes=2**20, cache_ttl_s=60, cache_check_timeout_s=2)
    with start_edge(settings) as edge:
        assert int(edge.config.uncached.removeprefix("127.0.0.1:")) > 0
        options = [
            "--cache-size=1048576",
            "--cache-ttl=60",
            "--cache-check-timeout=2",
            "--uncached",
            f"http://{edge.config.uncached}",
        ]
        assert edge.gateway.command[-7:-2] == options


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
def test_port_zero_is_replaced_by_a_free_port(start_edge, host):
    with start_edge(http=f"{host}:0", grpc=f"{host}:0") as edge:
        for address in (edge.config.http, edge.config.grpc):
            assert address.startswith(f"{host}:")
            assert int(address.rpartition(":")[2]) > 0


def test_problem_causes_a_restart_that_is_counted(start_edge, capfd):
    with start_edge() as edge:
        FakeProcess.events.clear()
        edge.gateway.problems = ["died"]
        edge.nginx.problems = ["hung"]
        edge.supervise()
        edge.supervise()
        assert FakeProcess.events == ["kill gateway", "kill nginx", "start gateway", "start nginx"]
        assert edge.restarts == {"gateway": {"died": 1}, "nginx": {"hung": 1}}
        written = json.loads(edge._state.read_text())["restarts"]
        assert written["gateway"] == dict.fromkeys(RESTART_REASONS, 0) | {"died": 1}
        assert written["nginx"] == dict.fromkeys(RESTART_REASONS, 0) | {"hung": 1}
        FakeProcess.events.clear()
        edge.supervise()
        assert FakeProcess.events == []
    assert "gateway: died; restarting it in 0 s" in capfd.readouterr().err


def test_failing_nginx_is_restarted_up_to_the_limit(start_edge):
    with start_edge() as edge:
        edge.nginx.problems = ["died"]
        edge.nginx.start_error = OSError("no memory")
        for _ in range(3):
            edge.supervise()
        with pytest.raises(NginxError, match="nginx keeps failing"):
            edge.supervise()
        assert edge.restarts["nginx"] == {"died": 1, "not started": 2}


def test_failing_gateway_does_not_stop_nginx(start_edge):
    with start_edge() as edge:
        edge.gateway.problems = ["died"]
        edge.gateway.start_error = OSError("no memory")
        for _ in range(10):
            edge.supervise()
        assert edge.restarts["gateway"]["not started"] >= 3


def test_killed_worker_is_counted_without_a_restart(start_edge):
    with start_edge() as edge:
        FakeProcess.events.clear()
        edge.nginx.stopped_children = 2
        edge.supervise()
        assert FakeProcess.events == []
        assert edge.restarts["nginx"] == {"worker stopped": 2}


def test_nginx_stops_before_the_gateway(start_edge):
    with start_edge():
        FakeProcess.events.clear()
    ends = [event for event in FakeProcess.events if event.startswith("end")]
    assert ends == ["end nginx", "end gateway"]


@pytest.mark.parametrize("drain_delay_s", [0.0, 0.01])
def test_drain_signal_is_sent_before_nginx_stops(start_edge, drain_delay_s):
    """Without a delay too: streams of the gRPC health service end, for which nginx would wait."""
    with start_edge(drain_delay_s=drain_delay_s):
        FakeProcess.events.clear()
    assert FakeProcess.events[:2] == [f"{DRAIN_SIGNAL.name} gateway", "end nginx"]


def test_drain_delay_also_applies_while_the_gateway_restarts(start_edge, monkeypatch):
    with start_edge(drain_delay_s=7) as edge:
        delays = []
        monkeypatch.setattr(edge, "_sleep", delays.append)
        edge.gateway.is_ready = False
        FakeProcess.events.clear()
    assert delays == [7]
    # Waiting connections are closed, because no gateway will accept them.
    assert FakeProcess.events[0] == "kill gateway"
    assert edge.gateway.listener.fileno() == -1


def test_second_stop_does_nothing(start_edge):
    with start_edge(drain_delay_s=0.01) as edge:
        edge.stop()
        FakeProcess.events.clear()
    assert FakeProcess.events == []


def test_nginx_is_terminated_after_the_grace_period(start_edge):
    with start_edge(grace_s=0.1) as edge:
        edge.nginx.stops_on_request = False
        FakeProcess.events.clear()
    assert FakeProcess.events[1:3] == ["end nginx", "SIGTERM nginx"]


def test_second_signal_stops_at_once(start_edge):
    stop = StopRequest()
    with start_edge(drain_delay_s=60, grace_s=60, stop=stop) as edge:
        edge.nginx.stops_on_request = False
        stop.request()
        edge.watch()  # returns
        stop.request()


def test_signal_during_the_start_stops_it(start_edge, monkeypatch):
    monkeypatch.setattr(
        FakeProcess, "is_ready", property(lambda self: False, lambda self, value: None), raising=False
    )
    stop = StopRequest()
    stop.request()
    with pytest.raises(KeyboardInterrupt), start_edge(stop=stop):
        pass


def test_unwritable_state_file_is_ignored(start_edge):
    with start_edge() as edge:
        edge._state.unlink(missing_ok=True)
        edge._state.mkdir()
        edge.nginx.problems = ["died"]
        edge.supervise()
        assert edge.restarts["nginx"] == {"died": 1}


def test_removed_configuration_is_restored(start_edge):
    with start_edge() as edge:
        edge._config_file.unlink()
        edge.supervise()
        assert edge._config_file.read_text() == "events {}"
        assert edge._config_file.stat().st_mode & 0o777 == 0o600
