"""The stubs come from the installed TorchServe, once, and whole."""

import subprocess
import sys
import zipfile

import pytest

from torchserve_models.client import generate_stubs
from torchserve_models.client.generate_stubs import FOLDER, STAMP, StubsError, generate, read_protos


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def modules(folder):
    """What counts: the stamp in the tree may be that of an older generator, which setup has not run again yet."""
    return {name: content for name, content in contents(folder).items() if name != STAMP}


def test_a_second_run_does_nothing(tmp_path, monkeypatch):
    folder = tmp_path / "_stubs"
    assert generate(folder) is True
    assert modules(folder) == modules(FOLDER)
    assert [path.name for path in tmp_path.iterdir()] == ["_stubs"]
    monkeypatch.setattr(generate_stubs, "run_protoc", lambda protos, root: pytest.fail("it ran again"))
    assert generate(folder) is False


def test_another_stamp_generates_again(tmp_path):
    folder = tmp_path / "_stubs"
    folder.mkdir()
    (folder / STAMP).write_text("of an older TorchServe")
    (folder / "inference_pb2.py").write_text("raise ImportError")
    assert generate(folder) is True
    assert modules(folder) == modules(FOLDER)


def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch):
    folder = tmp_path / "_stubs"
    folder.mkdir()
    (folder / STAMP).write_text("old")

    def fail(protos, root):
        raise StubsError("protoc failed")

    monkeypatch.setattr(generate_stubs, "run_protoc", fail)
    with pytest.raises(StubsError):
        generate(folder)
    assert contents(folder) == {STAMP: b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["_stubs"]


def test_without_torchserve_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["generate_stubs"])
    assert generate_stubs.main() == 1
    assert "TorchServe is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["empty", "no zip", "absent"])
def test_a_jar_without_protos(tmp_path, kind):
    jar = tmp_path / "model-server.jar"
    if kind == "empty":
        with zipfile.ZipFile(jar, "w"):
            pass
    elif kind == "no zip":
        jar.write_bytes(b"not a jar")
    with pytest.raises(StubsError, match="does not hold"):
        read_protos(jar)


def test_it_runs_without_importing_torch():
    code = (
        "import sys; from torchserve_models.client import generate_stubs as g; g.find_jar()\n"
        "print('torch' in sys.modules, 'ts' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=FOLDER.parents[2], check=True
    )
    assert done.stdout.split() == ["False", "False"]
