"""Read the files in deploy/: Compose variables, dashboard and alert expressions, and their metrics."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.conftest import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
ALERTMANAGER = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))

_NOT_METRICS = re.compile(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring)\s*\([^)]*\)')
_NAME = re.compile(r"(?<![\w.])[a-zA-Z_:][\w:]*(?!\s*\(|\w)")
_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}


def metrics_of(expression: str) -> set[str]:
    """Return the names of the metrics in a PromQL expression."""
    return set(_NAME.findall(_NOT_METRICS.sub(" ", expression))) - _WORDS


def panels() -> Iterator[tuple[str, str]]:
    """Yield title and expression of each dashboard query, as Grafana sends it for all models."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                expression = target["expr"].replace("$model", ".*").replace("$__rate_interval", "1m")
                yield f"{panel['title']}: {target['legendFormat']}", expression


def alerts() -> dict[str, str]:
    """Return the expression of each alert by name."""
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def configuration(folder: Path, target: str, interval: str) -> Path:
    """Write deploy/prometheus/prometheus.yml with one scrape target and another interval; return the path."""
    settings = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    settings["global"] |= {"scrape_interval": interval, "scrape_timeout": interval}
    (job,) = [
        job_config for job_config in settings["scrape_configs"] if job_config["job_name"] == "torchserve"
    ]
    job["static_configs"] = [{"targets": [target]}]
    settings["scrape_configs"] = [job]
    settings["rule_files"] = [str(PROMETHEUS / name) for name in settings["rule_files"]]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(settings))
    return path


def defaults(text: str) -> str:
    """Return the text of a Compose file with each ${NAME:-value} replaced by its default value."""
    inner = re.compile(r"\$\{\w+:-([^{}]*)\}")
    while inner.search(text):
        text = inner.sub(r"\1", text)
    return text
