"""What scripts/serve does before and around a run: checks first, signals, errors."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from torchserve_models.client import Endpoints
from torchserve_models.serving import cli
from torchserve_models.serving.archives import preparation
from torchserve_models.serving.commands import run_dir_hold, status, stopping
from torchserve_models.serving.errors import ConfigError, RunError
from torchserve_models.serving.run_config import config_file, ports
from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.run_config.run_plan import GRACE_S
from torchserve_models.serving.run_config.state import Identity, State


@pytest.fixture
def packs(monkeypatch):
    """Whether anything was packed."""
    asked = []
    monkeypatch.setattr(preparation, "prepare_archives", lambda *arguments: asked.append(arguments))
    return asked


@pytest.fixture(autouse=True)
def signals():
    """As they were."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def serve(tmp_path, *arguments):
    return cli.main(["serve", "--run-dir", str(tmp_path / "run"), "--store", str(tmp_path), *arguments])


def phase(tmp_path):
    state = State.read(RunDir(tmp_path / "run").state)
    return state and state.phase


def test_a_taken_port_is_known_before_anything_is_packed(tmp_path, packs, capsys):
    default = ports.Ports.from_settings(config_file.read()).inference
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        assert serve(tmp_path, "--port-offset", str(number - default)) == 1
    assert f"port {number} (inference) is not free" in capsys.readouterr().err
    assert packs == []


def test_a_broken_configuration_is_known_before_anything_is_packed(tmp_path, packs, monkeypatch, capsys):
    def read():
        raise ConfigError("line 1: nonsense")

    monkeypatch.setattr(config_file, "read", read)
    assert serve(tmp_path) == 2
    assert "nonsense" in capsys.readouterr().err
    assert packs == []


def test_an_offset_out_of_range_is_a_configuration_error(tmp_path, packs, capsys):
    assert serve(tmp_path, "--port-offset", "-8080") == 2
    assert "0 is not a port number" in capsys.readouterr().err


def test_what_the_system_refuses_is_an_error_and_no_traceback(tmp_path, packs, monkeypatch, capsys):
    def check_free(_settings):
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr(run_dir_hold, "check_free", check_free)
    assert serve(tmp_path) == 1
    assert capsys.readouterr().err == "error: [Errno 13] Permission denied: '/somewhere'\n"


def test_sigterm_while_packing_ends_it_as_ctrl_c_does(tmp_path, monkeypatch):
    cleaned = []

    def prepare(*_):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            cleaned.append(True)

    monkeypatch.setattr(run_dir_hold, "check_free", lambda _settings: None)
    monkeypatch.setattr(preparation, "prepare_archives", prepare)
    assert serve(tmp_path) == 130
    assert cleaned == [True]
    assert phase(tmp_path) == "stopped"


def test_while_packing_it_is_starting_and_no_second_start_packs_too(tmp_path, monkeypatch, capsys):
    run, seen = RunDir(tmp_path / "run"), []

    def prepare(*_):
        state = State.read(run.state)
        assert state is not None
        seen.append((state.supervisor, status.get_status(run).running, serve(tmp_path)))
        raise RunError("cannot be packed")

    monkeypatch.setattr(run_dir_hold, "check_free", lambda _settings: None)
    monkeypatch.setattr(preparation, "prepare_archives", prepare)
    assert serve(tmp_path) == 1
    assert seen == [(Identity.of(os.getpid()), True, 1)]
    assert f"already running in {run.path} (process {os.getpid()}, starting)" in capsys.readouterr().err
    assert phase(tmp_path) == "failed"


def test_stop_ends_a_start_that_still_packs(tmp_path):
    packing = (
        "import sys, time\n"
        "from torchserve_models.serving import cli\n"
        "from torchserve_models.serving.archives import preparation\n"
        "from torchserve_models.serving.commands import run_dir_hold\n"
        "def prepare(*_): print('packing', flush=True); time.sleep(600)\n"
        "preparation.prepare_archives = prepare; run_dir_hold.check_free = lambda _: None\n"
        "sys.exit(cli.main(['serve', '--run-dir', sys.argv[1], '--store', sys.argv[1]]))"
    )
    run = RunDir(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-c", packing, str(run.path)], stdout=subprocess.PIPE, cwd=config_file.ROOT
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"packing\n"
        assert stopping.stop(run).startswith("stopped")
        assert program.wait() == 130
    assert phase(tmp_path) == "stopped"


def test_a_signal_that_is_ignored_on_purpose_stays_so(tmp_path, packs, monkeypatch):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    cli._on_signals(lambda: None)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_IGN, signal.SIG_DFL)


def test_each_port_can_be_given_beside_the_offset(tmp_path, monkeypatch):
    """Case 23: with the options that the client's commands have."""
    checked = []
    monkeypatch.setattr(
        run_dir_hold, "check_free", lambda settings: checked.append(ports.endpoints(settings))
    )
    monkeypatch.setattr(preparation, "prepare_archives", lambda *_: (_ for _ in ()).throw(RunError("enough")))
    numbers = ("--port", "8300", "--grpc-management-port", "7400", "--health-port", "8500")
    assert serve(tmp_path, "--port-offset", "100", *numbers) == 1
    expected = Endpoints.at(
        inference_port=8300,
        management_port=8181,
        metrics_port=8182,
        grpc_port=7170,
        grpc_management_port=7400,
        health_port=8500,
    )
    assert checked == [expected]


@pytest.mark.parametrize("verb", ["status", "stop"])
def test_the_offset_has_to_be_the_servers_own(tmp_path, verb, capsys):
    """Case 23: so that status and stop take the options with which the server was started."""
    run = RunDir(tmp_path / "run")
    run.make()
    gone = Identity(2**22 + 1, "never")
    there = Endpoints.at(port_offset=100)
    State("stopped", "ended as asked", gone, None, there, (), str(tmp_path), str(tmp_path)).write(run.state)
    place = ["--run-dir", str(run.path)]
    codes = [cli.main([verb, *place]), cli.main([verb, *place, "--port-offset", "100"])]
    assert codes[0] == codes[1] != 2
    capsys.readouterr()
    assert cli.main([verb, *place, "--port-offset", "200"]) == 2
    assert f"the server of {run.path} is at {there.inference}, not at port 8280" in capsys.readouterr().err


def test_the_grace_and_the_drain_delay_can_be_given(tmp_path, packs, monkeypatch):
    planned = []

    def planning(*arguments, **options):
        planned.append(options)
        raise RunError("enough")

    monkeypatch.setattr(cli, "plan", planning)
    assert serve(tmp_path, "--grace", "90", "--drain-delay", "2.5") == 1
    assert serve(tmp_path) == 1
    assert [(options["grace"], options["drain_delay"]) for options in planned] == [(90, 2.5), (GRACE_S, 0)]
    for wrong in ("-1", "nan", "soon"):
        with pytest.raises(SystemExit) as caught:
            serve(tmp_path, "--grace", wrong)
        assert caught.value.code == 2
