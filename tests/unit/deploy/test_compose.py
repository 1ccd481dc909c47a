"""deploy/compose.yaml: valid by the Compose Specification's own schema; what it names is there and fits."""

import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from client import Endpoints
from gateway.nginx import Front, variables
from serving import config
from tests.conftest import ROOT
from tests.observing import defaults

FOLDER = ROOT / "deploy"
FILES = sorted(FOLDER.glob("compose*.yaml"))
SERVICES: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
VOLUMES = set(yaml.safe_load((FOLDER / "compose.yaml").read_text())["volumes"])
DOCKERFILE = (ROOT / "Dockerfile").read_text()
ARGUMENTS = set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
EXPOSED = set(re.findall(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE)[0].split())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_is_what_compose_reads(path):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_nothing_can_be_reached_from_elsewhere_unless_it_is_opened():
    opened = set()
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert defaults(port).startswith("127.0.0.1:"), port
            if port.startswith("${BIND:-"):
                opened.add(name)
    assert opened == {"nginx"}


def test_what_is_mounted_is_there():
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source, target = defaults(mount).split(":")[:2]
            assert target.startswith("/")
            assert (FOLDER / source).exists() if source.startswith(".") else source in VOLUMES, mount


def test_each_starts_when_what_it_needs_is_healthy():
    checked = {name for name, service in SERVICES.items() if "healthcheck" in service}
    if "HEALTHCHECK" in DOCKERFILE:
        checked.add("torchserve")
    assert checked == set(SERVICES)
    for name, service in SERVICES.items():
        needed = service.get("depends_on", {})
        assert needed or name == "torchserve"
        for other, how in needed.items():
            assert other in SERVICES
            assert how["condition"] == "service_healthy"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_bounded_and_comes_back(name):
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert "memory" in service["deploy"]["resources"]["limits"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["cap_drop"] == ["ALL"]
    assert service["pids_limit"] > 0
    assert {"max-size", "max-file"} <= set(service["logging"]["options"])
    assert service.get("read_only") or name == "torchserve"
    if "build" not in service:
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", service["image"])


def test_what_is_built_takes_these_arguments():
    for path in FILES:
        for service in yaml.safe_load(path.read_text())["services"].values():
            if "build" in service:
                assert set(service["build"]["args"]) <= ARGUMENTS


def test_the_image_opens_the_ports_of_the_configuration():
    settings = config.read()
    keys = ("inference_address", "metrics_address", "health_address")
    ports = {settings[key].rpartition(":")[2] for key in keys}
    assert ports | {settings["grpc_inference_port"]} == EXPOSED


def test_prometheus_scrapes_the_metrics_port_and_grafana_asks_prometheus():
    scraped = yaml.safe_load((FOLDER / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in scraped}
    assert targets["torchserve"] == [f"torchserve:{config.read()['metrics_address'].rpartition(':')[2]}"]
    provisioned = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    (source,) = provisioned["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert targets["supervisor"] == [f"torchserve:{config.read()['health_address'].rpartition(':')[2]}"]
    internal = SERVICES["nginx"]["environment"]["INTERNAL_LISTEN"]
    assert targets["edge"] == targets["nginx"] == [f"nginx:{internal}"]
    assert set(SERVICES["nginx"]["networks"]) & set(SERVICES["prometheus"]["networks"])
    assert not any(port.endswith(f":{internal}") for port in SERVICES["nginx"]["ports"])
    shared = [set(SERVICES[name]["networks"]) for name in ("torchserve", "prometheus", "grafana")]
    assert set.intersection(*shared)


def test_nginx_gets_every_variable_of_its_template():
    template = (FOLDER / "nginx" / "nginx.conf.template").read_text()
    given = {name for name in SERVICES["nginx"]["environment"] if not name.startswith("NGINX_")}
    assert set(re.findall(r"\$\{(\w+)\}", template)) == given


def test_nginx_has_the_limits_of_the_gateways_command(monkeypatch):
    """The numbers of gateway/nginx.py, from which docs/gateway.md derives the memory."""
    unlimited = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda _: (unlimited, unlimited))  # this machine's own limit
    at = Endpoints(inference="http://torchserve:8080", grpc_inference="torchserve:7070")
    values = variables(Front(endpoints=at), Path("/"))
    given = SERVICES["nginx"]["environment"]
    same = {
        name
        for name in values
        if re.search("SERVERS$|_REQUESTS$|_UPLOADS$|^RESEND|TIMEOUT$|CONN|FILES", name)
    }
    assert len(same) == 18
    for name in sorted(same | {"WORKER_PROCESSES", "ACCESS_LOG"}):
        assert defaults(given[name]) == values[name], name
    assert defaults(given["TEXT_MODELS"]) == "t5-small|bart-large-cnn"
    assert SERVICES["nginx"]["ulimits"]["nofile"] == int(given["OPEN_FILES"])


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_takes_what_comes_out_of_the_template(tmp_path):
    """The real one checks it; the other services are not here, and their names stand for this machine."""
    given = SERVICES["nginx"]["environment"] | {"WORK": str(tmp_path)}
    text = (FOLDER / "nginx" / "nginx.conf.template").read_text()
    for name, value in given.items():
        text = text.replace(f"${{{name}}}", defaults(value).replace("torchserve:", "127.0.0.1:"))
    (tmp_path / "nginx.conf").write_text(text)
    command = ["nginx", "-t", "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert checked.returncode == 0, checked.stderr


def test_nginx_finds_the_gateway_where_it_listens():
    command = SERVICES["gateway"]["command"]
    (listen,) = [each for each in command if each.startswith("--listen=")]
    port = listen.rpartition(":")[2]
    assert f"torchserve:{port}" in SERVICES["nginx"]["environment"].values()
    assert SERVICES["gateway"]["network_mode"] == "service:torchserve"
    assert set(SERVICES["nginx"]["networks"]) <= set(SERVICES["torchserve"]["networks"])


def test_the_dashboard_is_where_grafana_looks():
    provisioned = yaml.safe_load((FOLDER / "grafana/provisioning/dashboards/files.yaml").read_text())
    (provider,) = provisioned["providers"]
    mounts = dict(reversed(mount.split(":")[:2]) for mount in SERVICES["grafana"]["volumes"])
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    assert (FOLDER / mounts[provider["options"]["path"]] / home.name).is_file()
