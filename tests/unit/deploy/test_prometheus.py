"""deploy/prometheus and deploy/grafana are valid for promtool, and only use metrics that exist."""

import json
import re
import subprocess
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from handlers.core.metrics import BATCH_SIZE, Metrics
from tests.conftest import ROOT
from tests.observing import ALERTMANAGER, DASHBOARDS, GRAFANA, PROMETHEUS, alerts, metrics_of, panels
from tests.tools import needs
from tests.unit.handlers.context import RecordingCache
from torchserve_models.serving.health.metrics import SupervisorMetrics
from torchserve_models.serving.health.observations import ServerObservation
from torchserve_models.serving.metrics import REGISTRY

SUPERVISOR_METRICS = {
    "torchserve_supervisor_frontend_restarts_total",
    "torchserve_supervisor_ready",
    "torchserve_supervisor_requests_in_flight",
    "torchserve_supervisor_requests_waiting",
    "torchserve_supervisor_server_ready",
    "torchserve_supervisor_worker_kills_total",
    "torchserve_supervisor_workers_wanted",
}
"""Metrics of the supervisor that alerts and panels use (serving/health/metrics.py, serving/metrics.py)."""
GATEWAY_METRICS = {"gateway_process_restarts_total", "gateway_cache_requests_total"}
"""Metrics of gateway/metrics.py and response_cache/cache_metrics.py that alerts and panels use."""
needs_promtool = needs("promtool")


def promtool(*arguments: object) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def list_series() -> set[str]:
    """Return the names of all series of TorchServe, the supervisor and the gateway."""
    kinds = yaml.safe_load((ROOT / "torchserve_models" / "serving" / "metrics.yaml").read_text())
    template = (ROOT / "deploy" / "nginx" / "nginx.conf.template").read_text()
    names = {"up"} | set(re.findall(r"# TYPE (\w+) ", template)) | SUPERVISOR_METRICS | GATEWAY_METRICS
    for group in (kinds["ts_metrics"], kinds["model_metrics"]):
        names |= {entry["name"] for entries in group.values() for entry in entries}
    return names


@needs_promtool
def test_configuration_is_valid():
    promtool("check", "config", PROMETHEUS / "prometheus.yml")


@needs("amtool")
def test_alertmanager_configuration_is_valid():
    checked = subprocess.run(
        ["amtool", "check-config", ALERTMANAGER], capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_promtool
def test_alerts_fire_only_when_they_should():
    promtool("test", "rules", Path(__file__).parent / "alerts_test.yml")


def test_alerts_are_all_tested():
    cases = yaml.safe_load((Path(__file__).parent / "alerts_test.yml").read_text())["tests"]
    fired = [test for case in cases for test in case["alert_rule_test"] if test["exp_alerts"]]
    assert {test["alertname"] for test in fired} == set(alerts())


def test_alerts_are_explained():
    """Check that docs/operations.md has each alert with its severity, in the order of alerts.yml."""
    page = (ROOT / "docs" / "operations.md").read_text()
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    severities = [(rule["alert"], rule["labels"]["severity"]) for group in groups for rule in group["rules"]]
    assert re.findall(r"^\| `(\w+)` \((critical|warning)\) \|", page, re.MULTILINE) == severities


def test_supervisor_metrics_are_documented():
    """Check that the metrics of the supervisor are in docs/metrics.md or docs/operations.md."""
    pages = (ROOT / "docs" / name for name in ("metrics.md", "operations.md"))
    documented = set(
        re.findall(r"`(torchserve_supervisor_\w+)`", "".join(page.read_text() for page in pages))
    )
    supervisor = SupervisorMetrics(lambda: (ServerObservation(0.0, 0.0), 0.0))
    families = [*supervisor.registry.collect(), *REGISTRY.collect()]
    names = {family.name + "_total" * (family.type == "counter") for family in families}
    assert names == documented


def quantile_of_batch_sizes(sizes: list[int], quantile: float, expected: float, folder: Path) -> None:
    """Compute a quantile with the dashboard's expression from what a worker records every 15 seconds."""
    cache = RecordingCache()
    metrics = Metrics(cache, "m", "1")
    recorded: dict[str, list[float]] = {}
    for _ in range(9):
        metrics.flush()
        for (_, _, bound), total in cache.cache["counter"]["handler_batch_size_bucket"].values.items():
            recorded.setdefault(f'{{ModelName="m",ModelVersion="1",le="{bound}"}}', []).append(total)
        for size in sizes:
            metrics.observe(BATCH_SIZE, size)
    (expression,) = (
        query for title, query in panels() if title.startswith("Batch size:") and "0.95" in query
    )
    case = {
        "interval": "15s",
        "input_series": [
            {"series": f"handler_batch_size_bucket{labels}", "values": " ".join(map(str, totals))}
            for labels, totals in recorded.items()
        ],
        "promql_expr_test": [
            {
                "expr": f"round({expression.replace('0.95', str(quantile))}, 0.01)",
                "eval_time": "2m",
                "exp_samples": [{"labels": '{ModelName="m",ModelVersion="1"}', "value": expected}],
            }
        ],
    }
    (folder / "test.yml").write_text(yaml.safe_dump({"rule_files": [], "tests": [case]}))
    promtool("test", "rules", folder / "test.yml")


@needs_promtool
def test_quantiles_of_batch_sizes_are_not_limited_to_ten(tmp_path):
    """TorchServe's own histograms end at 10. A quantile is interpolated within a bucket, here from 24 to 32."""
    quantile_of_batch_sizes([1, *[32] * 9], 0.95, 31.56, tmp_path)
    quantile_of_batch_sizes([100, 128], 0.95, 126.4, tmp_path)
    quantile_of_batch_sizes([1], 0.95, 0.95, tmp_path)


@needs_promtool
def test_dashboard_expressions_are_valid_promql(tmp_path):
    rules = [
        {"record": f"panel:{number}", "expr": expression} for number, (_, expression) in enumerate(panels())
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "rules.yml")


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("up == 0", {"up"}),
        ('sum by (le, model) (rate(a_bucket{le="0.5",x=~"b|c"}[5m])) or vector(0)', {"a_bucket"}),
        ("sum(rate(a[1m])) / 1e6 > on (x) b offset 5m", {"a", "b"}),
    ],
)
def test_metric_names_are_extracted(expression, names):
    assert metrics_of(expression) - {"m"} == names


def test_dashboards_and_alerts_use_existing_metrics(list_series):
    for title, expression in [*panels(), *alerts().items()]:
        names = metrics_of(expression)
        assert names, title
        assert names <= list_series, title


def test_handler_metrics_are_documented_and_shown(list_series):
    shown = set().union(*(metrics_of(expression) for _, expression in panels()))
    documented = re.findall(r"^\| `(handler_\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    handler_metrics = {
        re.sub(r"_(bucket|sum|count)$", "", name) for name in list_series if name.startswith("handler_")
    }
    assert set(documented) == handler_metrics
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown} >= handler_metrics


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboard_is_valid(path):
    """Check that panels have unique ids, do not overlap, and use the provisioned data source."""
    dashboard = json.loads(path.read_text())
    provisioned = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())
    (source,) = provisioned["datasources"]
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    sources = [panel["datasource"] for panel in panels]
    sources += [target["datasource"] for panel in panels for target in panel["targets"]]
    sources += [variable["datasource"] for variable in dashboard["templating"]["list"]]
    assert all(used == {"type": source["type"], "uid": source["uid"]} for used in sources)
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below
