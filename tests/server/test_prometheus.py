"""A real Prometheus with the configuration in deploy/ scrapes a server and runs the dashboard's queries."""

import base64
import math
import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.observing import alerts, configuration, metrics_of, panels
from tests.tools import needs
from torchserve_models.client import Client, ClientError
from torchserve_models.reserved_ports import port_of, reserve_port
from training.images import draw_image
from training.reports import draw_example

pytestmark = needs("prometheus")

_, IMAGE = draw_image(33, 1)
TEXT, _ = draw_example(33, 1)
ABSENT_METRICS = {
    "Requests5XX",
    "handler_draft_tokens_total",
    "handler_accepted_draft_tokens_total",
    "gateway_cache_requests_total",
}
"""Metrics of events that do not occur here: 5xx responses, drafts and cached answers, which are off by default."""


class Prometheus:
    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, expression: str) -> list[float]:
        """Return the value of each series."""
        return [float(series["value"][1]) for series in self.get("query", query=expression)["result"]]

    def until(self, expression: str) -> None:
        deadline = time.monotonic() + 30
        while not self.values(expression):
            assert time.monotonic() < deadline, f"{expression} has no result"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def prometheus(server, tmp_path_factory) -> Iterator[Prometheus]:
    """Run Prometheus with a scrape interval of 0.5 s; requests are sent before and between scrapes."""
    folder = tmp_path_factory.mktemp("prometheus")
    shipped = configuration(folder, server.metrics.removeprefix("http://"), "500ms")
    with reserve_port() as reserved:
        yield from run_prometheus(folder, shipped, f"127.0.0.1:{port_of(reserved)}", server)


def run_prometheus(folder, shipped, address, server) -> Iterator[Prometheus]:
    command = ["prometheus", f"--config.file={shipped}", f"--web.listen-address={address}"]
    command += [f"--storage.tsdb.path={folder / 'data'}", "--log.level=warn"]
    send_requests(server)
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 30
        prometheus = Prometheus(f"http://{address}")
        while not is_ready(prometheus.url):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "prometheus is not ready after 30 s"
            time.sleep(0.1)
        prometheus.until("handler_failed_items_total")
        send_requests(server)
        prometheus.until("count(rate(handler_requests_total[1m]) > 0) >= 3")
        prometheus.until("count(rate(handler_failed_items_total[1m]) > 0) >= 2")
        prometheus.until("count(rate(handler_skipped_requests_total[1m]) > 0) >= 1")
        yield prometheus
    finally:
        process.terminate()
        process.wait(15)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def send_requests(server) -> None:
    """Send valid and invalid requests over REST, the only protocol that TorchServe's latency metrics include.

    The last request misses its deadline, because a series exists only after its first event.
    """
    with Client(endpoints=server.endpoints) as client:
        for _ in range(4):
            client.classify("resnet-50", IMAGE)
        for model in ("t5-small", "bart-large-cnn"):
            client.summarize(model, TEXT, num_beams=1, max_new_tokens=8)
        with pytest.raises(ClientError):
            client.classify("resnet-50", b"no image")
        with pytest.raises(ClientError):
            client.summarize("t5-small", "")
    late = httpx.post(
        f"{server.inference}/predictions/resnet-50", content=IMAGE, headers={"X-Request-Timeout": "0"}
    )
    assert late.status_code == 504


def test_prometheus_scrapes_the_server_with_the_shipped_configuration(prometheus, server):
    (target,) = prometheus.get("targets")["activeTargets"]
    assert target["health"] == "up", target["lastError"]
    assert target["labels"]["job"] == "torchserve"
    assert prometheus.values('up{job="torchserve"}') == [1.0]


def test_metrics_of_panels_and_alerts_are_scraped(prometheus):
    """The ports of the supervisor, the gateway and nginx are not scraped here."""
    scraped = set(prometheus.get("label/__name__/values"))
    expressions = [expression for _, expression in panels()] + list(alerts().values())
    metric_names = set().union(*map(metrics_of, expressions)) - ABSENT_METRICS
    metric_names = {
        name for name in metric_names if not re.match("(torchserve_)?supervisor_|nginx_|gateway_", name)
    }
    assert metric_names <= scraped, metric_names - scraped


@pytest.mark.parametrize(("title", "expression"), list(panels()), ids=[title for title, _ in panels()])
def test_panel_has_data(prometheus, title, expression):
    """Each query returns numbers that are not negative."""
    if all(
        name in ABSENT_METRICS or name.startswith("torchserve_supervisor_") for name in metrics_of(expression)
    ):
        prometheus.values(expression)
        return
    values = prometheus.values(expression)
    assert values
    assert any(not math.isnan(value) for value in values)
    assert all(value >= 0 for value in values if not math.isnan(value))


def test_panel_numbers_are_those_of_the_requests(prometheus, server):
    (refused,) = prometheus.values(
        'handler_failed_items_total{ModelName="resnet-50",ErrorType="InvalidImage"}'
    )
    assert refused >= 2
    before = prometheus.values('handler_requests_total{ModelName="resnet-50"}')[0]
    with Client(endpoints=server.endpoints) as client:
        for _ in range(3):
            client.classify("resnet-50", IMAGE)
    prometheus.until(f'handler_requests_total{{ModelName="resnet-50"}} >= {before + 3}')
    (memory,) = prometheus.values('handler_memory_bytes{ModelName="resnet-50"}')
    assert 50e6 < memory < 20e9
    (cores,) = prometheus.values('sum(rate(handler_cpu_seconds_total{ModelName="resnet-50"}[1m]))')
    assert 0 < cores < 64


def test_quantile_of_batch_sizes_is_not_limited_to_ten(prometheus, server):
    """The histograms of TorchServe itself end at 10. Here most batches have 24 images."""
    inputs = [base64.b64encode(IMAGE).decode()] * 24
    for _ in range(12):
        answer = httpx.post(f"{server.inference}/predictions/resnet-50", json={"inputs": inputs}, timeout=60)
        assert answer.status_code == 200, answer.text
    (panel,) = (query for title, query in panels() if title.startswith("Batch size:") and "0.95" in query)
    expression = panel.replace('".*"', '"resnet-50"')
    prometheus.until(f"{expression} > 16")
    (quantile,) = prometheus.values(expression)
    assert 16 < quantile <= 24


def test_healthy_server_fires_no_alert(prometheus):
    groups = prometheus.get("rules")["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert set(rules) == set(alerts())
    assert all(rule["health"] != "err" for rule in rules.values()), rules
    assert not [name for name, rule in rules.items() if rule["state"] == "firing"]
