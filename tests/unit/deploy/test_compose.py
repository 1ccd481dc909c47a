"""deploy/compose.yaml: valid by the Compose Specification's own schema; what it names is there and fits."""

import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.observing import defaults
from tests.tools import find_tool, needs
from torchserve_models.demo.cli import parse
from torchserve_models.gateway import render
from torchserve_models.serving.run_config import config_file
from torchserve_models.serving.run_config.memory_budget import (
    GATEWAY_BYTES,
    GIB,
    MIB,
    NGINX_BYTES,
    compute_budget,
)
from torchserve_models.serving.run_config.run_plan import GRACE_S, SHUTDOWN_S

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
    settings = config_file.read()
    keys = ("inference_address", "metrics_address", "health_address")
    ports = {settings[key].rpartition(":")[2] for key in keys}
    assert ports | {settings["grpc_inference_port"]} == EXPOSED


def test_prometheus_scrapes_the_metrics_port_and_grafana_asks_prometheus():
    scraped = yaml.safe_load((FOLDER / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in scraped}
    assert targets["torchserve"] == [f"torchserve:{config_file.read()['metrics_address'].rpartition(':')[2]}"]
    provisioned = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    (source,) = provisioned["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert targets["supervisor"] == [f"torchserve:{config_file.read()['health_address'].rpartition(':')[2]}"]
    internal = "8091"
    assert targets["edge"] == targets["nginx"] == [f"nginx:{internal}"]
    assert set(SERVICES["nginx"]["networks"]) & set(SERVICES["prometheus"]["networks"])
    assert not any(port.endswith(f":{internal}") for port in SERVICES["nginx"]["ports"])
    networks = {name: set(service.get("networks", [])) for name, service in SERVICES.items()}
    assert networks["prometheus"] & networks["torchserve"]
    assert networks["prometheus"] & networks["grafana"]
    assert not networks["grafana"] & networks["torchserve"]


def commands(**environment: str) -> list[list[str]]:
    """What the gateway's container runs, with this environment alone: the module and its arguments."""
    shell, option, script = SERVICES["gateway"]["command"]
    assert (shell, option) == ("sh", "-c")
    given = {
        name: defaults(value).replace("$", "") for name, value in SERVICES["gateway"]["environment"].items()
    } | environment
    show = 'python() { printf "%s\\n" python "$@"; echo; }; '  # each argument on a line of its own
    text = show + defaults(script).replace("$$", "$").replace("exec python", "python")
    run = subprocess.run(["sh", "-c", text], env=given, check=True, capture_output=True, text=True)
    return [block.splitlines() for block in run.stdout.strip().split("\n\n")]


def test_options_for_nginx_come_as_they_were_given():
    (_, _, _, *arguments), _ = commands(EDGE_OPTIONS="--cors-origin * --rate 50")
    assert arguments[-4:] == ["--cors-origin", "*", "--rate", "50"]


def rendered(monkeypatch, path: Path, body_bytes: int = 2**29) -> str:
    """nginx.conf as the gateway's container writes it; `body_bytes` is what the supervisor tells."""
    unlimited = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda _: (unlimited, unlimited))  # this machine's own limit
    monkeypatch.setattr(render, "supervised_body_bytes", lambda _: body_bytes)
    (python, option, module, *arguments), _ = commands()
    assert (python, option, module) == ("python", "-m", "torchserve_models.gateway.render")
    arguments = [each.replace("/app/.run", str(path)) for each in arguments]
    assert render.main([*arguments, "--resolver=127.0.0.11"]) == 0
    return (path / "nginx.conf").read_text()


def test_nginx_reads_what_the_gateways_container_writes(monkeypatch, tmp_path):
    text = rendered(monkeypatch, tmp_path)
    ((volume, target),) = [mount.split(":")[:2] for mount in SERVICES["gateway"]["volumes"]]
    nginx = dict(mount.split(":")[:2] for mount in SERVICES["nginx"]["volumes"])
    assert f"{nginx[volume]}/nginx.conf" in SERVICES["nginx"]["command"]
    assert target == "/app/.run"  # which belongs to the image's user, and so does a new volume
    assert f"pid {nginx['bodies']}/nginx.pid;" in text
    assert re.search(r"^!deploy/nginx$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)


def test_open_files_suffice_for_nginxs_connections(monkeypatch, tmp_path):
    """Its own limit, and that of the gateway's container, where the configuration is written."""
    (files,) = re.findall(r"worker_rlimit_nofile (\d+);", rendered(monkeypatch, tmp_path))
    assert SERVICES["nginx"]["ulimits"]["nofile"] == int(files)
    assert SERVICES["gateway"]["ulimits"]["nofile"] == int(files)


@pytest.mark.parametrize("gib", [1, 2, 4, 8, 32])
def test_one_number_sets_the_limits(gib, monkeypatch, tmp_path):
    """MEMORY is the limit of TorchServe's container; the supervisor and nginx derive the rest from it."""
    limits = {name: service["deploy"]["resources"]["limits"]["memory"] for name, service in SERVICES.items()}
    assert [name for name, limit in limits.items() if "${MEMORY" in limit] == ["torchserve"]
    assert "reservations" not in SERVICES["torchserve"]["deploy"]["resources"]
    budget = compute_budget(gib * GIB, has_edge=False)
    text = rendered(monkeypatch, tmp_path, budget.body_bytes)
    for size, share in (("torchserve", 12), ("torchserve_grpc", 6)):
        (bodies,) = re.findall(rf"upstream {size} \{{[^}}]*max_conns=(\d+);", text)
        assert int(bodies) == budget.body_bytes * share // 100 // 100_000


def test_the_other_containers_have_their_part_of_the_budget():
    limits = {name: service["deploy"]["resources"]["limits"]["memory"] for name, service in SERVICES.items()}
    assert defaults(limits["torchserve"]) == "8g"
    assert limits["gateway"] == f"{GATEWAY_BYTES // MIB}m"
    assert defaults(limits["nginx"]) == f"{NGINX_BYTES // MIB}m"


def test_there_is_time_for_requests_in_progress():
    for name in ("torchserve", "gateway", "nginx"):
        assert float(SERVICES[name]["stop_grace_period"].removesuffix("s")) > GRACE_S + SHUTDOWN_S + 1


def test_what_may_be_sent_to_torchserve_is_counted_once():
    """nginx counts bodies by address: a service in two networks that nginx shares has two."""
    assert SERVICES["torchserve"]["networks"] == SERVICES["nginx"]["networks"] == ["front"]


def test_capabilities_are_dropped_but_for_these():
    added = {name: service["cap_add"] for name, service in SERVICES.items() if "cap_add" in service}
    assert added == {"torchserve": ["SYS_PTRACE"], "nginx": ["CHOWN", "SETGID", "SETUID"]}
    assert re.search(r"^USER 1000:1000$", DOCKERFILE, re.MULTILINE)


@pytest.mark.parametrize("name", SERVICES)
def test_a_health_check_starts_no_interpreter(name):
    """An interpreter costs a second of CPU each time."""
    check = SERVICES[name].get("healthcheck", {}).get("test") or re.findall(
        "HEALTHCHECK.* CMD (.*)", DOCKERFILE
    )
    assert "python" not in " ".join(check)
    assert {"scripts/probe", "curl", "wget"} & set(re.findall(r"[\w/]+", " ".join(check)))


@needs("nginx")
def test_nginx_takes_the_configuration(monkeypatch, tmp_path):
    """The real one checks it, without looking names up, which takes 1.27.3; other services stand for this machine."""
    text = re.sub(r" resolve\b", "", rendered(monkeypatch, tmp_path)).replace("torchserve:", "127.0.0.1:")
    (tmp_path / "nginx.conf").write_text(text.replace("/var/cache/nginx", str(tmp_path)))
    command = [find_tool("nginx"), "-t", "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert checked.returncode == 0, checked.stderr


def test_nginx_finds_the_gateway_where_it_listens(monkeypatch, tmp_path):
    _, (python, option, module, *arguments) = commands()
    assert (python, option, module) == ("python", "-m", "torchserve_models.gateway")
    (listen,) = [each for each in arguments if each.startswith("--listen=")]
    port = listen.rpartition(":")[2]
    assert f"server torchserve:{port} " in rendered(monkeypatch, tmp_path)
    assert SERVICES["gateway"]["network_mode"] == "service:torchserve"


def test_the_dashboard_is_where_grafana_looks():
    provisioned = yaml.safe_load((FOLDER / "grafana/provisioning/dashboards/files.yaml").read_text())
    (provider,) = provisioned["providers"]
    mounts = dict(reversed(mount.split(":")[:2]) for mount in SERVICES["grafana"]["volumes"])
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    assert (FOLDER / mounts[provider["options"]["path"]] / home.name).is_file()


@pytest.mark.parametrize("shown", ["gradio", "streamlit"])
def test_the_page_for_the_browser_is_the_servers_image_with_another_command(shown):
    """Case 21."""
    server, page = SERVICES["torchserve"], SERVICES["demo"]
    assert (page["image"], page["build"]) == (server["image"], server["build"])
    python, option, module, *arguments = [
        part.replace("${DEMO_PAGE:-gradio}", shown) for part in page["command"]
    ]
    assert f"COPY --from=packages /app/{python.partition('/')[0]} " in DOCKERFILE
    assert (option, module) == ("-m", "torchserve_models.demo")
    options = parse(arguments)
    assert (options.page, options.host) == (shown, "0.0.0.0")
    assert page["network_mode"] == "service:torchserve"  # where it finds TorchServe without being told
    assert f"127.0.0.1:{options.port}:{options.port}" in [defaults(port) for port in server["ports"]]


def test_archives_cannot_be_changed_by_what_serves_them():
    mounts = [mount for mount in SERVICES["torchserve"]["volumes"] if ":/app/model_store" in mount]
    assert [mount.endswith(":/app/model_store:ro") for mount in mounts] == [True]
