"""The committed gRPC stubs and the tool that generates them."""

import importlib.util
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from scripts import generate_stubs
from scripts.generate_stubs import FOLDER, PROTOS, StubsError, generate, read_protos
from tests.conftest import ROOT

needs_torchserve = pytest.mark.skipif(
    importlib.util.find_spec("ts") is None or importlib.util.find_spec("grpc_tools") is None,
    reason="TorchServe or grpcio-tools is not installed",
)


def generated_modules(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*_pb2*")}


@needs_torchserve
def test_committed_stubs_are_those_of_the_installed_torchserve(tmp_path):
    generate(tmp_path / "_stubs")
    generated, committed = generated_modules(tmp_path / "_stubs"), generated_modules(FOLDER)
    assert len(committed) == 3 * len(PROTOS)
    assert generated == committed, (
        f"run python -m scripts.generate_stubs (grpcio-tools {version('grpcio-tools')}) and commit the result"
    )


@needs_torchserve
@pytest.mark.parametrize("name", PROTOS)
def test_committed_descriptor_has_the_services_of_the_proto(name):
    module = importlib.import_module(f"torchserve_models.client._stubs.{name}_pb2")
    descriptor = FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
    proto = read_protos(generate_stubs.find_jar())[f"{generate_stubs.PACKAGE}/{name}.proto"].decode()
    methods = [method.name for service in descriptor.service for method in service.method]
    assert methods
    assert proto.count("rpc ") == len(methods)
    assert all(f"rpc {method}" in proto for method in methods)


def test_protoc_failure_changes_nothing(tmp_path, monkeypatch):
    pytest.importorskip("grpc_tools")
    (tmp_path / "inference_pb2.py").write_text("old")
    monkeypatch.setattr(
        generate_stubs,
        "read_protos",
        lambda jar: {f"{generate_stubs.PACKAGE}/inference.proto": b"not a proto"},
    )
    monkeypatch.setattr(generate_stubs, "find_jar", lambda: Path("model-server.jar"))
    with pytest.raises(StubsError, match="protoc failed"):
        generate(tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("inference_pb2.py", "old")]


def test_missing_torchserve_is_reported(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert generate_stubs.main() == 1
    assert "TorchServe is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["empty", "no zip", "absent"])
def test_jar_without_protos_is_rejected(tmp_path, kind):
    jar = tmp_path / "model-server.jar"
    if kind == "empty":
        with zipfile.ZipFile(jar, "w"):
            pass
    elif kind == "no zip":
        jar.write_bytes(b"not a jar")
    with pytest.raises(StubsError, match="does not hold"):
        read_protos(jar)


@needs_torchserve
def test_finding_the_jar_does_not_import_torch():
    code = (
        "import sys; from scripts import generate_stubs as g; g.find_jar()\n"
        "print('torch' in sys.modules, 'ts' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == ["False", "False"]
