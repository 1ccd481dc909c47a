"""deploy/compose.yaml is valid by the Compose Specification, and its references and limits are consistent."""

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
from tests.unit.cli.parsing import parse_options
from torchserve_models.cli import main
from torchserve_models.cli.demo import DemoOptions
from torchserve_models.gateway.nginx import container_config
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
def test_file_matches_the_compose_schema(path):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_ports_are_published_on_loopback_by_default():
    opened = set()
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert defaults(port).startswith("127.0.0.1:"), port
            if port.startswith("${BIND:-"):
                opened.add(name)
    assert opened == {"nginx"}


def test_mounted_files_exist():
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source, target = defaults(mount).split(":")[:2]
            assert target.startswith("/")
            assert (FOLDER / source).exists() if source.startswith(".") else source in VOLUMES, mount


def test_services_wait_for_healthy_dependencies():
    checked = {name for name, service in SERVICES.items() if "healthcheck" in service}
    if "HEALTHCHECK" in DOCKERFILE:
        checked.add("torchserve")
    assert checked == set(SERVICES)
    for name, service in SERVICES.items():
        needed = service.get("depends_on", {})
        assert needed or name in ("torchserve", "alertmanager")
        for other, how in needed.items():
            assert other in SERVICES
            assert how["condition"] == "service_healthy"


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_pinned_limited_and_restarted(name):
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


def test_build_arguments_exist_in_the_dockerfile():
    for path in FILES:
        for service in yaml.safe_load(path.read_text())["services"].values():
            if "build" in service:
                assert set(service["build"]["args"]) <= ARGUMENTS


def test_image_exposes_the_configured_ports():
    settings = config_file.read()
    keys = ("inference_address", "metrics_address", "health_address")
    ports = {settings[key].rpartition(":")[2] for key in keys}
    assert ports | {settings["grpc_inference_port"]} == EXPOSED


def test_prometheus_and_grafana_use_the_right_addresses():
    scraped = yaml.safe_load((FOLDER / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    (alertmanager,) = yaml.safe_load((FOLDER / "prometheus" / "prometheus.yml").read_text())["alerting"][
        "alertmanagers"
    ]
    assert alertmanager["static_configs"] == [{"targets": ["alertmanager:9093"]}]
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
    assert networks["prometheus"] & networks["alertmanager"]
    assert not (networks["grafana"] | networks["alertmanager"]) & networks["torchserve"]


def commands(**environment: str) -> list[list[str]]:
    """Return the command of the gateway's container in this environment: the module and its arguments."""
    shell, option, script = SERVICES["gateway"]["command"]
    assert (shell, option) == ("sh", "-c")
    environment = {
        name: defaults(value).replace("$", "") for name, value in SERVICES["gateway"]["environment"].items()
    } | environment
    show = 'python() { printf "%s\\n" python "$@"; echo; }; '  # one line per argument
    text = show + defaults(script).replace("$$", "$").replace("exec python", "python")
    run = subprocess.run(["sh", "-c", text], env=environment, check=True, capture_output=True, text=True)
    return [block.splitlines() for block in run.stdout.strip().split("\n\n")]


def test_edge_options_are_passed_on_unchanged():
    (_, _, _, *arguments), _ = commands(EDGE_OPTIONS="--cors-origin * --rate 50")
    assert arguments[-4:] == ["--cors-origin", "*", "--rate", "50"]


def test_key_file_requires_keys_in_both_processes():
    nginx, gateway = commands()
    assert not [argument for argument in nginx + gateway if "keys" in argument]
    nginx, gateway = commands(KEY_FILE="/app/.run/my keys.json")
    assert nginx[-1] == "--require-keys"
    assert gateway[-1] == "--keys=/app/.run/my keys.json"


def render_config(monkeypatch, path: Path, body_bytes: int = 2**29) -> str:
    """Return the nginx.conf that the gateway's container generates. `body_bytes` is the supervisor's budget."""
    unlimited = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda _: (unlimited, unlimited))  # the limit of this machine
    monkeypatch.setattr(container_config, "supervised_body_bytes", lambda _: body_bytes)
    (python, option, module, *arguments), _ = commands()
    assert (python, option, module, arguments[0]) == ("python", "-m", "torchserve_models", "gateway-config")
    arguments = [argument.replace("/app/.run", str(path)) for argument in arguments]
    assert main([*arguments, "--resolver=127.0.0.11"]) == 0
    return (path / "nginx.conf").read_text()


def test_nginx_reads_the_configuration_that_the_gateway_writes(monkeypatch, tmp_path):
    text = render_config(monkeypatch, tmp_path)
    ((volume, target),) = [mount.split(":")[:2] for mount in SERVICES["gateway"]["volumes"]]
    nginx = dict(mount.split(":")[:2] for mount in SERVICES["nginx"]["volumes"])
    assert f"{nginx[volume]}/nginx.conf" in SERVICES["nginx"]["command"]
    assert target == "/app/.run"  # a new volume belongs to the image's user, too
    assert f"pid {nginx['bodies']}/nginx.pid;" in text
    assert re.search(r"^!deploy/nginx$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)


def test_open_file_limit_suffices_for_nginx(monkeypatch, tmp_path):
    """Check the limit of nginx's container and of the gateway's container, which generates the configuration."""
    (files,) = re.findall(r"worker_rlimit_nofile (\d+);", render_config(monkeypatch, tmp_path))
    assert SERVICES["nginx"]["ulimits"]["nofile"] == int(files)
    assert SERVICES["gateway"]["ulimits"]["nofile"] == int(files)


@pytest.mark.parametrize("gib", [1, 2, 4, 8, 32])
def test_memory_limit_determines_the_other_limits(gib, monkeypatch, tmp_path):
    """MEMORY is the limit of TorchServe's container; the supervisor and nginx derive the rest from it."""
    limits = {name: service["deploy"]["resources"]["limits"]["memory"] for name, service in SERVICES.items()}
    assert [name for name, limit in limits.items() if "${MEMORY" in limit] == ["torchserve"]
    assert "reservations" not in SERVICES["torchserve"]["deploy"]["resources"]
    budget = compute_budget(gib * GIB, has_edge=False)
    text = render_config(monkeypatch, tmp_path, budget.body_bytes)
    (bodies,) = re.findall(r"upstream torchserve \{[^}]*max_conns=(\d+);", text)
    assert int(bodies) == budget.body_bytes * 12 // 100 // 100_000


def test_other_containers_fit_the_memory_budget():
    limits = {name: service["deploy"]["resources"]["limits"]["memory"] for name, service in SERVICES.items()}
    assert defaults(limits["torchserve"]) == "8g"
    assert limits["gateway"] == f"{GATEWAY_BYTES // MIB}m"
    assert defaults(limits["nginx"]) == f"{NGINX_BYTES // MIB}m"


def test_stop_grace_period_covers_requests_in_progress():
    for name in ("torchserve", "gateway", "nginx"):
        assert float(SERVICES[name]["stop_grace_period"].removesuffix("s")) > GRACE_S + SHUTDOWN_S + 1


def test_body_memory_is_counted_once():
    """nginx would count bodies twice if it shared two networks with a service, which has an address in each."""
    assert SERVICES["torchserve"]["networks"] == SERVICES["nginx"]["networks"] == ["front"]


def test_capabilities_are_dropped():
    added = {name: service["cap_add"] for name, service in SERVICES.items() if "cap_add" in service}
    assert added == {"torchserve": ["SYS_PTRACE"], "nginx": ["CHOWN", "SETGID", "SETUID"]}
    assert re.search(r"^USER 1000:1000$", DOCKERFILE, re.MULTILINE)


@pytest.mark.parametrize("name", SERVICES)
def test_health_check_starts_no_interpreter(name):
    """Starting an interpreter would take a second of CPU time."""
    check = SERVICES[name].get("healthcheck", {}).get("test") or re.findall(
        "HEALTHCHECK.* CMD (.*)", DOCKERFILE
    )
    assert "python" not in " ".join(check)
    assert {"scripts/probe", "curl", "wget"} & set(re.findall(r"[\w/]+", " ".join(check)))


@needs("nginx")
def test_nginx_accepts_the_configuration(monkeypatch, tmp_path):
    """Replace host names by addresses of this machine, because name lookups require nginx 1.27.3."""
    text = re.sub(r" resolve\b", "", render_config(monkeypatch, tmp_path)).replace(
        "torchserve:", "127.0.0.1:"
    )
    (tmp_path / "nginx.conf").write_text(text.replace("/var/cache/nginx", str(tmp_path)))
    command = [find_tool("nginx"), "-t", "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert checked.returncode == 0, checked.stderr


def test_nginx_uses_the_addresses_of_the_gateway(monkeypatch, tmp_path):
    _, (python, option, module, command, *arguments) = commands()
    assert (python, option, module, command) == ("python", "-m", "torchserve_models", "gateway-app")
    addresses = [argument for argument in arguments if re.match(r"--(grpc-)?listen=0\.0\.0\.0:", argument)]
    assert len(addresses) == 2
    text = render_config(monkeypatch, tmp_path)
    for address in addresses:
        assert f"server torchserve:{address.rpartition(':')[2]} " in text
    assert SERVICES["gateway"]["network_mode"] == "service:torchserve"


def test_dashboard_is_mounted_where_grafana_expects_it():
    provisioned = yaml.safe_load((FOLDER / "grafana/provisioning/dashboards/files.yaml").read_text())
    (provider,) = provisioned["providers"]
    mounts = dict(reversed(mount.split(":")[:2]) for mount in SERVICES["grafana"]["volumes"])
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    assert (FOLDER / mounts[provider["options"]["path"]] / home.name).is_file()


@pytest.mark.parametrize("shown", ["gradio", "streamlit"])
def test_demo_page_uses_the_server_image(shown):
    server, page = SERVICES["torchserve"], SERVICES["demo"]
    assert (page["image"], page["build"]) == (server["image"], server["build"])
    python, option, module, command, *arguments = [
        part.replace("${DEMO_PAGE:-gradio}", shown) for part in page["command"]
    ]
    assert f"COPY --from=packages /app/{python.partition('/')[0]} " in DOCKERFILE
    assert (option, module, command) == ("-m", "torchserve_models", "demo")
    options = parse_options(DemoOptions, *arguments)
    assert (options.page, options.host) == (shown, "0.0.0.0")
    assert page["network_mode"] == "service:torchserve"  # TorchServe has its default addresses there
    assert f"127.0.0.1:{options.port}:{options.port}" in [defaults(port) for port in server["ports"]]


def test_model_store_is_mounted_read_only():
    mounts = [mount for mount in SERVICES["torchserve"]["volumes"] if ":/app/model_store" in mount]
    assert [mount.endswith(":/app/model_store:ro") for mount in mounts] == [True]
