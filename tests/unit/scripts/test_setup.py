"""scripts/setup: environments from lock files, matching builds of torch and torchvision, and error messages."""

import functools
import hashlib
import http.server
import importlib.machinery
import importlib.util
import subprocess
import sys
import threading
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture
def setup(monkeypatch, tmp_path):
    """Load the script as a module with a temporary root directory."""
    loader = importlib.machinery.SourceFileLoader("setup_script", str(ROOT / "scripts" / "setup"))
    spec = importlib.util.spec_from_loader("setup_script", loader)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    root = tmp_path / "root"
    (root / "scripts").mkdir(parents=True)
    (root / "scripts" / "setup").write_text("")
    monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.setattr(module, "VENV", root / ".venv")
    monkeypatch.setattr(module, "DEMO_VENV", root / ".venv-demo")
    monkeypatch.setattr(module, "CLIENTS_VENV", root / ".venv-clients")
    monkeypatch.setattr(module, "make", functools.partial(make_with_installed_uv, module))
    return module


def make_with_installed_uv(module, folder: Path) -> None:
    """Create an environment with this environment's uv instead of a downloaded one."""
    if not folder.exists():
        venv.create(folder, with_pip=False)
        (folder / "bin" / "uv").symlink_to(Path(sys.prefix) / "bin" / "uv")


def wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> Path:
    """Write a minimal pure-Python wheel."""
    info = f"{name}-{version}.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name_in_wheel, text in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(name_in_wheel, text)
    return path


def torch_wheel(folder: Path, build: str) -> Path:
    code = f"__version__ = '2.13.0{build}'\ndef zeros(*shape): return shape\n"
    return wheel(folder, "torch", f"2.13.0{build}", {"torch/__init__.py": code})


def torchvision_wheel(folder: Path, build: str) -> Path:
    """Write a torchvision wheel whose import fails with another build of torch, as the real one does."""
    code = f"""import torch
__version__ = '0.28.0{build}'
if not torch.__version__.endswith('2.13.0{build}'):
    raise RuntimeError('operator torchvision::nms does not exist')
class ops:
    nms = staticmethod(lambda *arguments: None)
"""
    return wheel(folder, "torchvision", f"0.28.0{build}", {"torchvision/__init__.py": code})


@pytest.fixture
def index(tmp_path):
    """Return a function that serves a package index of wheels over HTTP and returns its URL."""
    folder = tmp_path / "index"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.func.log_message = lambda *arguments: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def serve(wheels: list[Path], name: str = "simple") -> str:
        for path in wheels:
            project = folder / name / path.name.split("-")[0].replace("_", "-")
            project.mkdir(parents=True, exist_ok=True)
            path.rename(project / path.name)
            links = "".join(
                f'<a href="{file.name}#sha256={hashlib.sha256(file.read_bytes()).hexdigest()}">{file.name}</a>'
                for file in sorted(project.glob("*.whl"))
            )
            (project / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
        return f"http://127.0.0.1:{server.server_port}/{name}"

    yield serve
    server.shutdown()
    server.server_close()


def write_project(setup, monkeypatch, url: str, extras: dict[str, list[str]]) -> None:
    """Write a pyproject.toml and lock the packages of its extras from the index at `url`."""
    locks = setup.ROOT / "requirements"
    locks.mkdir()
    monkeypatch.setenv("UV_DEFAULT_INDEX", url)
    monkeypatch.setenv("UV_NO_CACHE", "1")
    monkeypatch.setenv("UV_LINK_MODE", "copy")
    for extra in ("serve", "calibrate", "dev", "demo"):
        lock = locks / f"{extra}.txt"
        command = [
            Path(sys.prefix) / "bin" / "uv",
            "pip",
            "compile",
            "--quiet",
            "--generate-hashes",
            "--no-header",
        ]
        packages = "\n".join(extras.get(extra, ()))
        subprocess.run([*command, "-", "--output-file", lock], input=packages, text=True, check=True)


@pytest.mark.parametrize(
    ("cpu_builds", "gpu", "choice", "installed"),
    [
        ((["+cpu"], ["+cpu"]), False, "auto", "+cpu"),
        ((["+cpu"], ["+cpu"]), True, "auto", ""),
        ((["+cpu"], []), False, "auto", ""),  # only torch is a CPU build
        (None, False, "auto", ""),  # the CPU index cannot be reached
        ((["+cpu"], ["+cpu"]), False, "cuda", ""),  # an image for GPUs is built where there is none
        ((["+cpu"], ["+cpu"]), True, "cpu", "+cpu"),
    ],
)
@pytest.mark.full
def test_installed_builds_of_torch_and_torchvision_match(
    setup, monkeypatch, tmp_path, capsys, index, cpu_builds, gpu, choice, installed
):
    wheels = [
        torch_wheel(tmp_path, ""),
        torchvision_wheel(tmp_path, ""),
        wheel(tmp_path, "nvidia_x", "1", {}),
    ]
    default = index(wheels)
    extras = {"serve": ["torch==2.13.0", "torchvision==0.28.0", "nvidia-x==1"]}
    write_project(setup, monkeypatch, default, extras)
    cpu_index = "http://127.0.0.1:9/cpu"
    if cpu_builds is not None:
        cpu_wheels = [torch_wheel(tmp_path, build) for build in cpu_builds[0]]
        cpu_index = index(cpu_wheels + [torchvision_wheel(tmp_path, build) for build in cpu_builds[1]], "cpu")
    monkeypatch.setattr(setup, "CPU_INDEX", cpu_index)
    monkeypatch.setattr(setup, "has_gpu", lambda: gpu)
    monkeypatch.setattr(setup.platform, "system", lambda: "Linux")
    setup.install_server("serve", choice)
    assert setup.installed_torch() == [f"2.13.0{installed}", f"0.28.0{installed}"]
    has_cuda_packages = any((setup.VENV / "lib").glob("*/site-packages/nvidia_x-1.dist-info"))
    assert has_cuda_packages is (installed == "")
    output = capsys.readouterr().out
    assert ("cannot be reached; taking the default builds" in output) is (cpu_builds is None)
    assert ("does not have these builds" in output) is (cpu_builds == (["+cpu"], []))


def test_working_cpu_builds_are_not_replaced(setup, monkeypatch, tmp_path, index):
    default = index([torch_wheel(tmp_path, ""), torchvision_wheel(tmp_path, "")])
    write_project(setup, monkeypatch, default, {"serve": ["torch==2.13.0", "torchvision==0.28.0"]})
    cpu_wheels = [torch_wheel(tmp_path, "+cpu"), torchvision_wheel(tmp_path, "+cpu")]
    monkeypatch.setattr(setup, "CPU_INDEX", index(cpu_wheels, "cpu"))
    monkeypatch.setattr(setup, "has_gpu", lambda: False)
    setup.install_server("serve", "cpu")
    monkeypatch.setattr(setup, "CPU_INDEX", "http://127.0.0.1:9/cpu")
    setup.install_server("serve", "auto")
    assert setup.installed_torch() == ["2.13.0+cpu", "0.28.0+cpu"]


def test_package_with_another_hash_is_rejected(setup, monkeypatch, tmp_path, index, capsys):
    url = index([wheel(tmp_path, "pages", "1.0", {"pages.py": ""})])
    write_project(setup, monkeypatch, url, {"demo": ["pages==1.0"]})
    index([wheel(tmp_path, "pages", "1.0", {"pages.py": "changed = True"})])
    with pytest.raises(SystemExit, match="The packages could not be installed"):
        setup.install_locked(setup.DEMO_VENV, [setup.DEMO_LOCK])
    assert "Hash mismatch" in capsys.readouterr().err
    assert not list(setup.DEMO_VENV.glob("lib/*/site-packages/pages.py"))


@pytest.mark.full
def test_demo_has_a_separate_environment(setup, monkeypatch, tmp_path, index, capsys):
    url = index([wheel(tmp_path, "pages", "1.0", {"pages.py": ""})])
    write_project(setup, monkeypatch, url, {"demo": ["pages==1.0"]})
    monkeypatch.setattr(sys, "argv", ["setup", "--demo"])
    setup.main()
    assert "setup: .venv-demo is ready" in capsys.readouterr().out
    subprocess.run([setup.DEMO_VENV / "bin" / "python", "-c", "import pages"], check=True)
    assert not setup.VENV.exists()
    setup.main()
    assert capsys.readouterr().out == "Nothing to do: .venv-demo is up to date.\n"
    (setup.ROOT / "requirements" / "demo.txt").write_text("missing==1.0 --hash=sha256:0\n")
    with pytest.raises(SystemExit):
        setup.main()


@pytest.mark.full
def test_clients_of_other_servers_have_a_separate_environment(setup, monkeypatch, tmp_path, index, capsys):
    codec = wheel(tmp_path, "codec", "1.0", {"codec.py": ""})
    digest = hashlib.sha256(codec.read_bytes()).hexdigest()
    write_project(setup, monkeypatch, index([codec]), {})
    requirements = setup.ROOT / "tests" / "clients" / "requirements.txt"
    requirements.parent.mkdir(parents=True)
    requirements.write_text(f"codec==1.0 --hash=sha256:{digest}\n")
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)  # no npm: the clients for node are left out
    monkeypatch.setattr(sys, "argv", ["setup", "--clients"])
    setup.main()
    subprocess.run([setup.CLIENTS_VENV / "bin" / "python", "-c", "import codec"], check=True)
    assert not setup.VENV.exists()
    capsys.readouterr()
    setup.main()
    assert capsys.readouterr().out == "Nothing to do: .venv-clients is up to date.\n"


@pytest.mark.parametrize("version", [(3, 10, 1), (3, 14, 0)])
def test_unsupported_python_is_rejected_with_supported_versions(setup, monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit) as caught:
        setup.require_python()
    assert f"Python 3.11, 3.12 or 3.13 is needed; this is 3.{version[1]}" in str(caught.value)


def test_supported_python_in_path_is_used(setup, monkeypatch):
    called = []
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    monkeypatch.setattr(setup.shutil, "which", lambda name: f"/usr/bin/{name}")
    works = lambda command: subprocess.CompletedProcess(command, int("3.11" in command[0]))  # noqa: E731
    monkeypatch.setattr(setup, "run", works)
    monkeypatch.setattr(setup.os, "environ", {})
    monkeypatch.setattr(setup.os, "execv", lambda path, arguments: called.append(path) or sys.exit(0))
    with pytest.raises(SystemExit):
        setup.require_python()
    assert called == ["/usr/bin/python3.12"]  # Python 3.11 does not start


@pytest.mark.parametrize(
    ("system", "machine", "libc", "supported"),
    [
        ("Linux", "x86_64", "glibc", True),
        ("Linux", "aarch64", "glibc", True),
        ("Darwin", "arm64", "", True),
        ("Darwin", "x86_64", "", False),
        ("Windows", "AMD64", "", False),
        ("Linux", "riscv64", "glibc", False),
        ("Linux", "x86_64", "", False),
    ],
)
def test_unsupported_platform_is_named_in_the_error(setup, monkeypatch, system, machine, libc, supported):
    monkeypatch.setattr(setup.platform, "system", lambda: system)
    monkeypatch.setattr(setup.platform, "machine", lambda: machine)
    monkeypatch.setattr(setup.platform, "libc_ver", lambda: (libc, "2.36" if libc else ""))
    if supported:
        setup.check_platform()
        return
    with pytest.raises(SystemExit, match=f"{system} on {machine}.* is not supported"):
        setup.check_platform()


def test_second_run_reports_that_nothing_changed():
    result = subprocess.run([ROOT / "scripts" / "setup"], capture_output=True, text=True, check=True)
    assert result.stdout == "Nothing to do: .venv is up to date.\n"


def test_linked_environment_of_another_checkout_is_not_emptied(setup, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "kept").touch()
    setup.VENV.symlink_to(other)
    with pytest.raises(SystemExit, match="is a link to an environment of another checkout"):
        setup.create_environment(setup.VENV)
    assert (other / "kept").exists()


def test_lock_files_contain_no_index_and_pin_each_package_once(setup):
    texts = {path: (ROOT / path).read_text() for path in (*setup.LOCKS, setup.DEMO_LOCK)}
    assert not [path for path, text in texts.items() if "://" in text]
    for paths in (setup.LOCKS, (setup.DEMO_LOCK,)):
        packages = [package for path in paths for package in setup.PACKAGE.finditer(texts[path])]
        names = [package[1] for package in packages]
        assert len(names) == len(set(names)) > 50
        assert all("--hash=sha256:" in package[0] for package in packages)
        assert "".join(package[0] for package in packages) == "".join(texts[path] for path in paths)
