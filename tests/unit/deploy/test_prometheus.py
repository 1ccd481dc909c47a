"""deploy/prometheus and deploy/grafana: what the real promtool says, and that they ask for metrics that exist."""

import json
import re
import subprocess
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.observing import DASHBOARDS, GRAFANA, PROMETHEUS, alerts, metrics_of, panels
from tests.tools import needs

OF_THE_SUPERVISOR = {
    "torchserve_supervisor_frontend_restarts_total",
    "torchserve_supervisor_ready",
    "torchserve_supervisor_server_ready",
    "torchserve_supervisor_worker_kills_total",
}
"""What its /metrics has for the alerts (serving/health/metrics.py, serving/metrics.py)."""
OF_THE_GATEWAY = {"gateway_process_restarts_total"}
"""What the alerts ask of gateway/metrics.py."""
needs_promtool = needs("promtool")


def promtool(*arguments: object) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def declared() -> set[str]:
    """The series that a server offers, by serving/metrics.yaml; a histogram has three. And those of the edge."""
    kinds = yaml.safe_load((ROOT / "torchserve_models" / "serving" / "metrics.yaml").read_text())
    template = (ROOT / "deploy" / "nginx" / "nginx.conf.template").read_text()
    names = {"up"} | set(re.findall(r"# TYPE (\w+) ", template)) | OF_THE_SUPERVISOR | OF_THE_GATEWAY
    for group in (kinds["ts_metrics"], kinds["model_metrics"]):
        for kind, entries in group.items():
            endings = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            names |= {entry["name"] + ending for entry in entries for ending in endings}
    return names


@needs_promtool
def test_the_configuration_is_one():
    promtool("check", "config", PROMETHEUS / "prometheus.yml")


@needs_promtool
def test_the_alerts_fire_when_they_should_and_only_then():
    promtool("test", "rules", Path(__file__).parent / "alerts_test.yml")


def test_every_alert_is_tested():
    cases = yaml.safe_load((Path(__file__).parent / "alerts_test.yml").read_text())["tests"]
    tried = [each for case in cases for each in case["alert_rule_test"] if each["exp_alerts"]]
    assert {each["alertname"] for each in tried} == set(alerts())


@needs_promtool
def test_what_the_dashboard_asks_is_promql(tmp_path):
    rules = [{"record": f"panel:{number}", "expr": asked} for number, (_, asked) in enumerate(panels())]
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
def test_names_of_metrics_are_found(expression, names):
    assert metrics_of(expression) - {"m"} == names


def test_only_metrics_that_exist_are_asked_for(declared):
    for title, expression in [*panels(), *alerts().items()]:
        names = metrics_of(expression)
        assert names, title
        assert names <= declared, title


def test_every_metric_of_ours_is_shown_and_told(declared):
    shown = set().union(*(metrics_of(expression) for _, expression in panels()))
    told = re.findall(r"^\| `(handler_\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in declared if name.startswith("handler_")}
    assert set(told) == ours
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown} >= ours


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_can_be_shown(path):
    """Its panels have numbers of their own, lie beside each other, and ask the data source that is provisioned."""
    dashboard = json.loads(path.read_text())
    provisioned = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())
    (source,) = provisioned["datasources"]
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    sources = [panel["datasource"] for panel in panels]
    sources += [target["datasource"] for panel in panels for target in panel["targets"]]
    sources += [variable["datasource"] for variable in dashboard["templating"]["list"]]
    assert all(each == {"type": source["type"], "uid": source["uid"]} for each in sources)
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below
