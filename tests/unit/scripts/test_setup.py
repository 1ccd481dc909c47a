"""scripts/setup: a torch pair that matches, whatever the index offers; clear words on a wrong Python."""

import importlib.machinery
import importlib.util
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture
def setup(monkeypatch, tmp_path):
    """The script as a module, with a virtual environment of its own."""
    loader = importlib.machinery.SourceFileLoader("setup_script", str(ROOT / "scripts" / "setup"))
    spec = importlib.util.spec_from_loader("setup_script", loader)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    monkeypatch.setattr(module, "VENV", tmp_path / "venv")
    monkeypatch.setattr(module, "PYTHON_IN_VENV", tmp_path / "venv" / "bin" / "python")
    return module


def wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> None:
    """A pure-Python wheel, just real enough for pip."""
    info = f"{name}-{version}.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(path, text)


def torch_wheel(folder: Path, build: str) -> None:
    code = f"__version__ = '2.13.0{build}'\ndef zeros(*shape): return shape\n"
    wheel(folder, "torch", f"2.13.0{build}", {"torch/__init__.py": code})


def torchvision_wheel(folder: Path, build: str) -> None:
    """As the real one, it fails to import with a torch of another build."""
    code = f"""import torch
__version__ = '0.28.0{build}'
if not torch.__version__.endswith('2.13.0{build}'):
    raise RuntimeError('operator torchvision::nms does not exist')
class ops:
    nms = staticmethod(lambda *arguments: None)
"""
    wheel(folder, "torchvision", f"0.28.0{build}", {"torchvision/__init__.py": code})


@pytest.mark.parametrize(
    ("torch_builds", "torchvision_builds", "gpu", "wanted", "installed"),
    [
        (["", "+cpu"], ["", "+cpu"], False, "auto", "+cpu"),
        (["", "+cpu"], ["", "+cpu"], True, "auto", ""),
        (["", "+cpu"], [""], False, "auto", ""),  # a lone CPU build of torch, which `==` would take
        ([""], [""], False, "auto", ""),
        (["+cpu"], ["+cpu"], False, "auto", "+cpu"),
        (["", "+cpu"], ["", "+cpu"], False, "cuda", ""),  # an image for GPUs is built where there is none
        (["", "+cpu"], ["", "+cpu"], True, "cpu", "+cpu"),
    ],
)
def test_the_installed_builds_match(
    setup, monkeypatch, tmp_path, torch_builds, torchvision_builds, gpu, wanted, installed
):
    index = tmp_path / "index"
    index.mkdir()
    for build in torch_builds:
        torch_wheel(index, build)
    for build in torchvision_builds:
        torchvision_wheel(index, build)
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(setup, "has_gpu", lambda: gpu)
    venv.create(setup.VENV, with_pip=True)
    setup.install_torch(wanted)
    code = "import torch, torchvision; print(torch.__version__, torchvision.__version__)"
    output = subprocess.run(
        [setup.PYTHON_IN_VENV, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert output.split() == [f"2.13.0{installed}", f"0.28.0{installed}"]


def test_a_wrong_python_is_told_what_to_install(setup, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 13, 1))
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit) as caught:
        setup.require_python()
    assert "Python 3.11 is needed; this is 3.13" in str(caught.value)


def test_a_right_python_elsewhere_is_used(setup, monkeypatch):
    called = []
    monkeypatch.delenv("SETUP_REEXEC", raising=False)
    monkeypatch.setattr(sys, "version_info", (3, 13, 1))
    monkeypatch.setattr(setup.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(setup.os, "environ", {})
    monkeypatch.setattr(setup.os, "execv", lambda path, arguments: called.append(path) or sys.exit(0))
    with pytest.raises(SystemExit):
        setup.require_python()
    assert called == ["/usr/bin/python3.11"]


def test_a_second_run_does_nothing_and_says_so():
    result = subprocess.run([ROOT / "scripts" / "setup"], capture_output=True, text=True, check=True)
    assert result.stdout == "Nothing to do: .venv is up to date.\n"


def test_the_demo_has_an_environment_of_its_own(setup, monkeypatch, tmp_path, capsys):
    root = tmp_path / "root"
    for path, text in {
        "torchserve_models/demo/requirements.txt": "pages==1.0\n",
        "scripts/setup": "",
    }.items():
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text(text)
    wheel(tmp_path, "pages", "1.0", {"pages.py": ""})
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(setup, "ROOT", root)
    monkeypatch.setattr(setup, "DEMO_VENV", root / ".venv-demo")
    monkeypatch.setattr(sys, "argv", ["setup", "--demo"])
    setup.main()
    assert "done in" in capsys.readouterr().out
    subprocess.run([root / ".venv-demo" / "bin" / "python", "-c", "import pages"], check=True)
    assert not setup.VENV.exists()
    setup.main()
    assert capsys.readouterr().out == "Nothing to do: .venv-demo is up to date.\n"
    (root / "demo" / "requirements.txt").write_text("pages==2.0\n")
    with pytest.raises(SystemExit):
        setup.main()


def test_other_servers_clients_have_an_environment_of_their_own(setup, monkeypatch, tmp_path, capsys):
    root = tmp_path / "root"
    for path, text in {"tests/clients/requirements.txt": "codec==1.0\n", "scripts/setup": ""}.items():
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text(text)
    wheel(tmp_path, "codec", "1.0", {"codec.py": ""})
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(setup, "ROOT", root)
    monkeypatch.setattr(setup, "CLIENTS_VENV", root / ".venv-clients")
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)  # without npm, those for node are left out
    monkeypatch.setattr(sys, "argv", ["setup", "--clients"])
    setup.main()
    subprocess.run([root / ".venv-clients" / "bin" / "python", "-c", "import codec"], check=True)
    assert not setup.VENV.exists()
    capsys.readouterr()
    setup.main()
    assert capsys.readouterr().out == "Nothing to do: .venv-clients is up to date.\n"


def test_a_link_to_another_checkouts_environment_is_not_emptied(setup, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "kept").touch()
    (tmp_path / "venv").symlink_to(other)
    with pytest.raises(SystemExit, match="is a link to an environment of another checkout"):
        setup.make(setup.VENV)
    assert (other / "kept").exists()
