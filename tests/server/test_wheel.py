"""The wheel, built from the repository and installed outside the checkout."""

import json
import os
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT
from tests.live_server import free_offset

TIMEOUT_S = 240


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The built wheel. hatchling is already installed, so that building needs no network."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, folder], cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("torchserve_models-*.whl"))


def clean_environment() -> dict[str, str]:
    """Return the environment without what the tests set, such as a cache of Java classes."""
    set_by_tests = ("PYTHON", "PYTEST", "JDK_JAVA_OPTIONS", "TORCHSERVE_MODELS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(set_by_tests)}


def run(command, folder, *, check=True):
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=clean_environment(), capture_output=True, text=True
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def test_wheel_has_all_data_and_one_top_level_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"torchserve_models"}
    listed = subprocess.run(
        ["git", "ls-files", "config.properties", "deploy/nginx", "handlers", "models", "torchserve_models"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    tracked = [path for path in listed if (ROOT / path).exists()]
    prefix = "torchserve_models/"
    expected = {path if path.startswith(prefix) else f"{prefix}data/{path}" for path in tracked}
    assert len(expected) > 200
    assert expected <= names


@pytest.fixture(scope="module")
def client_venv(wheel, tmp_path_factory) -> Path:
    """An environment with the wheel and its core dependencies, from the package index."""
    folder = tmp_path_factory.mktemp("client")
    venv.create(folder / "venv", with_pip=True)
    command = [
        folder / "venv" / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        wheel,
    ]
    done = run(command, folder, check=False)
    if done.returncode:
        pytest.skip(f"the package index cannot be used here: {done.stderr[-300:]}")
    return folder / "venv"


def test_client_install_needs_no_server_packages(client_venv, tmp_path):
    code = (
        "import sys, importlib.util as u, grpc\n"
        "from torchserve_models import AsyncClient, Client, __version__\n"
        "import torchserve_models.client._stubs.inference_pb2_grpc\n"
        "print(__version__, [name for name in ('torch', 'numpy', 'handlers', 'ts') if u.find_spec(name)])\n"
        "try: Client(protocol='grpc', retries=0, timeout=5).describe('resnet-50')\n"
        "except Exception as error: print(type(error).__name__)"
    )
    lines = run([client_venv / "bin" / "python", "-c", code], tmp_path).stdout.splitlines()
    assert lines == ["0.1.0 []", "Unavailable"]


def test_command_line_of_a_client_install(client_venv, tmp_path):
    command = client_venv / "bin" / "torchserve-models"
    assert "usage" in run([command, "--help"], tmp_path).stdout.lower()
    assert "0.1.0" in run([command, "--version"], tmp_path).stdout
    assert run([command, "predict", "--help"], tmp_path).stdout
    missing = run([command, "serve", "--no-pack"], tmp_path, check=False)
    assert missing.returncode == 1
    assert "torchserve-models[serve]" in missing.stderr


@pytest.fixture(scope="module")
def serve_venv(wheel, tmp_path_factory) -> Path:
    """An environment with the wheel that finds all dependencies in the environment of this test.

    Installing the serve extra would take minutes. The .pth file gives access to installed packages alone: not to the
    checkout, which is not in site-packages.
    """
    folder = tmp_path_factory.mktemp("serve")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    library = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    shared = Path(sys.prefix) / library
    (folder / "venv" / library / "shared.pth").write_text(f"{shared}\n")
    install = [sys.executable, "-m", "pip", "--python", folder / "venv" / "bin" / "python", "install"]
    run([*install, "--no-deps", "--no-index", "--ignore-installed", wheel], folder)
    return folder / "venv"


@pytest.mark.timeout(TIMEOUT_S)
def test_installed_wheel_packs_and_serves_a_store(serve_venv, tmp_path):
    command = serve_venv / "bin" / "torchserve-models"
    store, offset = tmp_path / "store", free_offset()
    run([command, "pack", "resnet-50", "--weights", "starter", "--store", store], tmp_path)
    assert (store / "resnet-50.mar").is_file()
    image = tmp_path / "image.jpg"
    run(
        [sys.executable, "-c", f"from PIL import Image; Image.new('RGB', (64, 64)).save({str(image)!r})"],
        ROOT,
    )
    serve = [command, "serve", "resnet-50", "--store", store, "--no-pack", "--port-offset", str(offset)]
    with open(tmp_path / "output", "wb") as output:
        server = subprocess.Popen(
            list(map(str, serve)), cwd=tmp_path, env=clean_environment(), stdout=output, stderr=output
        )
    try:
        url = f"http://127.0.0.1:{8080 + offset}/predictions/resnet-50"
        answer = wait_for_answer(server, url, image.read_bytes(), tmp_path / "output")
        assert set(answer[0]) == {"label", "score"}
        status = run([command, "status", "--json", "--port-offset", str(offset)], tmp_path, check=False)
        assert json.loads(status.stdout)
        wait_for_text(server, "Ready in", tmp_path / "output")
        assert server.poll() is None
    finally:
        server.terminate()
        server.wait(60)
    assert (tmp_path / ".run").is_dir()  # the current directory's, not one in site-packages
    assert not list(serve_venv.rglob(".run"))


def wait_for_text(server, text, output):
    deadline = time.monotonic() + 60
    while text not in output.read_text():
        assert server.poll() is None, output.read_text()
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.2)


def wait_for_answer(server, url, content, output):
    deadline = time.monotonic() + TIMEOUT_S - 60
    while time.monotonic() < deadline:
        assert server.poll() is None, output.read_text()
        try:
            response = httpx.post(url, content=content, timeout=10)
            if response.status_code == 200:
                return response.json()
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise AssertionError(output.read_text())
