"""The systemd unit is valid, and its timeouts match those of the supervisor."""

import re
import subprocess

from tests.conftest import ROOT
from tests.tools import needs
from torchserve_models.serving.run_config.run_plan import GRACE_S, SHUTDOWN_S

UNIT = ROOT / "deploy" / "systemd" / "torchserve-models.service"


def setting(name):
    (value,) = re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)
    return value


@needs("systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path):
    copy = tmp_path / UNIT.name
    program = setting("ExecStart").split()[0]
    copy.write_text(UNIT.read_text().replace(program, "/bin/true"))  # only an installed one exists
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_stop_timeout_covers_the_shutdown():
    assert float(setting("TimeoutStopSec").removesuffix("s")) > GRACE_S + SHUTDOWN_S + 1
    assert setting("KillMode") == "mixed"
    assert setting("Type") == "notify"
