"""A real Prometheus sends alerts to a real Alertmanager, which sends them to its receiver."""

import http.server
import json
import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.observing import ALERTMANAGER, PROMETHEUS, configuration
from tests.tools import needs
from torchserve_models.reserved_ports import port_of, reserve_port

pytestmark = needs("prometheus", "prometheus-alertmanager")

WAITS = {"group_wait": "1s", "group_interval": "1s", "repeat_interval": "1h"}


@pytest.fixture
def notifications() -> Iterator[tuple[str, "queue.Queue[Any]"]]:
    """Receive webhook notifications; yield the URL and a queue of their contents."""
    received: queue.Queue[Any] = queue.Queue()

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", received
        server.shutdown()


def alertmanager_configuration(folder: Path, webhook: str) -> Path:
    """Write deploy/alertmanager/alertmanager.yml with a webhook as the receiver, without its waiting times."""
    settings = yaml.safe_load(ALERTMANAGER.read_text())
    settings["route"] |= WAITS
    for route in settings["route"]["routes"]:
        route |= WAITS
    (receiver,) = settings["receivers"]
    receiver["webhook_configs"] = [{"url": webhook}]
    path = folder / "alertmanager.yml"
    path.write_text(yaml.safe_dump(settings))
    return path


def prometheus_configuration(folder: Path, target: str, alertmanager: str) -> Path:
    """Write deploy/prometheus/ with the addresses of this test, and with alerts that fire at once."""
    rules = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)
    (folder / "alerts.yml").write_text(yaml.safe_dump(rules))
    path = configuration(folder, target, "500ms")
    settings = yaml.safe_load(path.read_text())
    settings["global"]["evaluation_interval"] = "500ms"
    settings["rule_files"] = [str(folder / "alerts.yml")]
    (shipped,) = settings["alerting"]["alertmanagers"]
    shipped["static_configs"] = [{"targets": [alertmanager]}]
    path.write_text(yaml.safe_dump(settings))
    return path


@contextmanager
def run(command: list[str], address: str, log: Path) -> Iterator[None]:
    """Run a program, and wait until it is ready."""
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 30
        while not _is_ready(address):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"{command[0]} is not ready after 30 s:\n{log.read_text()}"
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(15)


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/-/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def test_alert_reaches_the_receiver(tmp_path, notifications):
    webhook, received = notifications
    with ExitStack() as stack:
        ports = [port_of(stack.enter_context(reserve_port())) for _ in range(3)]
        manager, prometheus, target = (f"127.0.0.1:{port}" for port in ports)
        command = ["prometheus-alertmanager", f"--web.listen-address={manager}", "--cluster.listen-address="]
        command += [f"--storage.path={tmp_path / 'alertmanager'}"]
        command += [f"--config.file={alertmanager_configuration(tmp_path, webhook)}"]
        stack.enter_context(run(command, manager, tmp_path / "alertmanager.log"))
        command = ["prometheus", f"--web.listen-address={prometheus}", "--log.level=warn"]
        command += [f"--storage.tsdb.path={tmp_path / 'prometheus'}"]
        command += [f"--config.file={prometheus_configuration(tmp_path, target, manager)}"]
        stack.enter_context(run(command, prometheus, tmp_path / "prometheus.log"))
        notification = received.get(timeout=60)
    assert notification["receiver"] == "operators"
    (alert,) = notification["alerts"]
    assert alert["status"] == "firing"
    assert alert["labels"]["alertname"] == "TorchServeDown"
    assert alert["labels"]["severity"] == "critical"
    assert alert["annotations"]["summary"] == f"{target} does not answer on its metrics port"
