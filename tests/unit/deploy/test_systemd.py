"""The systemd units are valid, and their timeouts match those of the processes."""

import re
import subprocess

import pytest

from tests.conftest import ROOT
from tests.tools import needs
from torchserve_models.serving.run_config.run_plan import GRACE_S, SHUTDOWN_S

FOLDER = ROOT / "deploy" / "systemd"
SERVER, GATEWAY = (FOLDER / f"torchserve-models{suffix}.service" for suffix in ("", "-gateway"))


def setting(unit, name):
    (value,) = re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)
    return value


@needs("systemd-analyze")
@pytest.mark.parametrize("unit", [SERVER, GATEWAY])
def test_systemd_accepts_the_unit(tmp_path, unit):
    for copied in (SERVER, GATEWAY):  # one refers to the other
        program = setting(copied, "ExecStart").split()[0]
        copy = tmp_path / copied.name
        copy.write_text(copied.read_text().replace(program, "/bin/true"))  # only an installed one exists
    command = ["systemd-analyze", "verify", tmp_path / unit.name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", [SERVER, GATEWAY])
def test_stop_timeout_covers_the_shutdown(unit):
    assert float(setting(unit, "TimeoutStopSec").removesuffix("s")) > GRACE_S + SHUTDOWN_S + 1
    assert setting(unit, "KillMode") == "mixed"


def test_server_notifies_systemd_itself():
    """A guardian between the two would receive the notifications' permission instead of the supervisor."""
    assert setting(SERVER, "Type") == "notify"
    assert setting(SERVER, "NotifyAccess") == "main"
    assert "guardian" not in setting(SERVER, "ExecStart")


def test_gateway_uses_the_run_folder_and_user_of_the_server():
    for name in ("User", "Group", "WorkingDirectory"):
        assert setting(GATEWAY, name) == setting(SERVER, name)
    run_dirs = [setting(unit, "ExecStart").partition("--run-dir ")[2] for unit in (SERVER, GATEWAY)]
    assert run_dirs[0] == run_dirs[1]
    assert SERVER.name in setting(GATEWAY, "After").split()
