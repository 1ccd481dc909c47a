"""The container image, built by scripts/image with buildah: user, readiness, answers and shutdown.

The build takes minutes and tens of gigabytes. Run it with `IMAGE_TEST=1 scripts/test tests/image`. IMAGE_BASE is the
base (localhost/debian:bookworm-slim), IMAGE_BUILD_ARGS further options of the build, and IMAGE an existing image.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import yaml

from tests.conftest import ROOT
from tests.image.container import Container, environment
from tests.image.pip_mounts import mounts
from tests.observing import defaults
from training.images import draw_image
from training.reports import draw_example

BASE = os.environ.get("IMAGE_BASE", "localhost/debian:bookworm-slim")
STARTERS = sorted(path.parent.name for path in (ROOT / "models").glob("*/starter"))
COMPOSE = ROOT / "deploy" / "compose.yaml"
TAG = "localhost/torchserve-models:test"
TOOLS = ("buildah", "unshare", "nsenter", "chroot", "ip")

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    if os.environ.get("IMAGE_TEST") != "1":
        pytest.skip("building the image takes minutes; set IMAGE_TEST=1")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and {', '.join(missing or TOOLS)}")
    if subprocess.run(
        ["buildah", "inspect", "--type", "image", BASE], env=environment(), capture_output=True
    ).returncode:
        pytest.skip(f"the base image {BASE} is missing; set IMAGE_BASE to another one")
    if name := os.environ.get("IMAGE"):
        yield name
        return
    tools = {"IMAGE_BUILD_ARGS": " ".join([*mounts(), os.environ.get("IMAGE_BUILD_ARGS", "")])}
    start = time.monotonic()
    command = [ROOT / "scripts" / "image", "--base", BASE, "--tag", TAG, "--tool", "buildah"]
    done = subprocess.run(command, env=environment() | tools, capture_output=True, text=True)
    try:
        assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
        print(f"\nbuilt in {time.monotonic() - start:.0f} s; {done.stdout.splitlines()[-1]}")
        yield TAG
    finally:
        subprocess.run(["buildah", "rmi", TAG], env=environment(), capture_output=True)


@pytest.fixture(scope="module")
def container(image) -> Iterator[Container]:
    """Start a container and wait until its health check passes."""
    running = Container(image)
    try:
        start = time.monotonic()
        running.start()
        while (health := running.run(*running.config["Healthcheck"]["Test"][1:])).returncode:
            assert running.alive(), running.stop()[2]
            assert time.monotonic() < start + 300, health.stdout + health.stderr
            time.sleep(1)
        print(f"\nready after {time.monotonic() - start:.0f} s: {health.stdout}")
        yield running
    finally:
        running.remove()


def test_published_ports_serve_every_model(container, tmp_path):
    """This repository's client runs in the network of the container."""
    label, photo = draw_image(7, 0)
    text, summary = draw_example(7, 0)
    (tmp_path / "image.jpg").write_bytes(photo)
    (tmp_path / "report.txt").write_text(text)

    def answer(model: str, file: str, *options: str) -> str:
        client = ["env", "-C", str(ROOT), sys.executable, "-m", "torchserve_models", "predict"]
        done = container.beside(*client, model, str(tmp_path / file), *options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert label in answer("resnet-50", "image.jpg")
    assert label in answer("resnet-50", "image.jpg", "--protocol", "grpc")
    assert summary in answer("t5-small", "report.txt")
    assert summary in answer("bart-large-cnn", "report.txt")


def test_attention_of_the_summarizers_is_compiled(container):
    """The compiler of the build stage is not in the image."""
    code = "import sys, zipfile; print(*zipfile.ZipFile(sys.argv[1]).namelist())"
    for name in ("t5-small", "bart-large-cnn"):
        members = container.run("python3", "-c", code, f"model_store/{name}.mar").stdout.split()
        assert "model/prepared/step-kernels-x86-64-v3.so" in members


def test_all_models_are_in_the_image_and_ready(container):
    status = json.loads(container.run("scripts/status", "--json").stdout)
    assert {model["name"]: model["weights"] for model in status["models"]} == dict.fromkeys(
        STARTERS, "starter"
    )
    assert status["ready"]


def test_no_process_is_root_and_process_1_is_tini(container):
    init = container.init
    assert init.name() == "tini"
    family = [init, *init.children(recursive=True)]
    assert len(family) >= 3 + len(STARTERS)
    assert {process.uids().real for process in family} == {1000}
    assert {process.uids().effective for process in family} == {1000}


def test_management_cannot_be_reached_from_outside(container):
    code = "import psutil; print([tuple(c.laddr) for c in psutil.net_connections('tcp') if c.status == 'LISTEN'])"
    listening = {port: ip for ip, port in ast.literal_eval(container.run("python", "-c", code).stdout)}
    for port in (8080, 8082, 7070):
        assert listening[port] in ("0.0.0.0", "::")
    for port in (8081, 7071):
        assert listening[port] in ("127.0.0.1", "::ffff:127.0.0.1")


def test_image_has_no_compiler(container):
    for tool in ("gcc", "cc", "g++", "make", "ld", "pip", "pip3", "git", "curl", "wget"):
        assert container.run("sh", "-c", f"command -v {tool}").returncode != 0, tool
    assert container.run("python", "-m", "pip", "--version").returncode != 0
    for leftover in (
        "root/.cache",
        "var/cache/apt/archives",
        "app/.git",
        "app/tests",
        "app/docs",
        "app/benchmarks",
    ):
        assert not (container.root / leftover).exists(), leftover
    assert list((container.root / "var/lib/apt/lists").iterdir()) == []
    assert not list((container.root / "app/model_store").glob(".prepared"))


def test_served_files_cannot_be_written(container):
    writable = container.run("find", "/app", "-writable", "-not", "-type", "l", "-not", "-path", "/app/.run*")
    assert writable.stdout == ""


def test_killed_worker_is_replaced_and_not_ready_meanwhile(container):
    workers = json.loads(container.run("scripts/status", "--json").stdout)["models"][0]["workers"]
    assert container.run("sh", "-c", f"kill -9 {workers[0]['pid']}").returncode == 0
    deadline = time.monotonic() + 60
    while True:
        status = json.loads(container.run("scripts/status", "--json").stdout)
        now = status["models"][0]["workers"]
        if status["ready"] and now[0]["pid"] != workers[0]["pid"]:
            return
        assert time.monotonic() < deadline, status
        time.sleep(0.5)


@pytest.mark.skipif(
    not (ROOT / "torchserve_models" / "cli" / "gateway.py").is_file(),
    reason="there is no gateway in this checkout",
)
def test_gateway_runs_from_the_same_image(container):
    """The gateway runs with the command in deploy/compose.yaml, in the network of TorchServe."""
    service = yaml.safe_load(defaults(COMPOSE.read_text()))["services"]["gateway"]
    check = service["healthcheck"]["test"][1]
    gateway = container.spawn(*service["command"])
    try:
        deadline = time.monotonic() + 60
        while (health := container.run("sh", "-c", check)).returncode:
            assert gateway.poll() is None
            assert time.monotonic() < deadline, health.stderr
            time.sleep(0.5)
    finally:
        gateway.terminate()
        gateway.wait(20)


def test_sigterm_stops_the_container_within_ten_seconds(container):
    """Must be the last test of `container`, because it stops the container."""
    family = [container.init, *container.init.children(recursive=True)]
    code, seconds, printed = container.stop()
    print(f"\nended {seconds:.1f} s after SIGTERM")
    assert seconds < 10
    assert code == 0, printed
    assert not [process for process in family if process.is_running()]


def test_mounted_archives_are_served_by_another_command(image, tmp_path):
    """A mounted model store replaces the one in the image."""
    other = Container(image)
    try:
        tmp_path.chmod(0o755)
        shutil.copy(other.root / "app/model_store/resnet-50.mar", tmp_path)
        other.start(["scripts/serve", "--no-pack"], {tmp_path: "/app/model_store"})
        deadline = time.monotonic() + 120
        while other.run("scripts/status").returncode:
            assert other.alive(), other.stop()[2]
            assert time.monotonic() < deadline
            time.sleep(1)
        status = json.loads(other.run("scripts/status", "--json").stdout)
        assert [model["name"] for model in status["models"]] == ["resnet-50"]
        assert other.stop()[0] == 0
    finally:
        other.remove()
