#!/usr/bin/env python3
"""Regenerate torchserve_models/client/_stubs from the protos of the installed TorchServe.

A developer's tool: run `.venv/bin/python -m scripts.generate_stubs` after a change of TorchServe's or grpcio-tools'
version and commit the result. The .proto files are read from TorchServe's jar.
"""

import importlib.util
import sys
import tempfile
import zipfile
from importlib.resources import files
from pathlib import Path

PROTOS = ("inference", "management", "open_inference_grpc")
# google.rpc.Status, which inference.proto imports; its module comes with the package googleapis-common-protos.
IMPORTED_PROTOS = ("google/rpc/status.proto",)
PACKAGE = "torchserve_models/client/_stubs"
FOLDER = Path(__file__).resolve().parent.parent / PACKAGE


class StubsError(Exception):
    """The stubs cannot be generated; the message says why."""


def find_jar() -> Path:
    """Return the path of TorchServe's jar without importing TorchServe, which would import torch.

    Raises StubsError when TorchServe is not installed.
    """
    spec = importlib.util.find_spec("ts")
    for package_folder in (spec.submodule_search_locations or []) if spec else []:
        jar = Path(package_folder) / "frontend" / "model-server.jar"
        if jar.is_file():
            return jar
    raise StubsError(
        "TorchServe is not installed in this environment: ts/frontend/model-server.jar was not found"
    )


def read_protos(jar: Path) -> dict[str, bytes]:
    """Return the services' protos and their imports, by the path under which protoc looks for them."""
    try:
        with zipfile.ZipFile(jar) as archive:
            protos = {f"{PACKAGE}/{name}.proto": archive.read(f"proto/{name}.proto") for name in PROTOS}
            return protos | {name: archive.read(name) for name in IMPORTED_PROTOS}
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise StubsError(f"{jar} does not hold TorchServe's protos: {error}") from error


def generate(folder: Path = FOLDER) -> None:
    """Write the generated modules into `folder`. Raises StubsError; a failed run changes nothing there."""
    from grpc_tools import protoc

    protos = read_protos(find_jar())
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for name, content in protos.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        arguments = [f"--proto_path={root}", f"--proto_path={files('grpc_tools') / '_proto'}"]
        arguments += [f"--{kind}={root}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
        arguments += [name for name in protos if name not in IMPORTED_PROTOS]
        if protoc.main(["protoc", *arguments]) != 0:
            raise StubsError("protoc failed; its message is above")
        folder.mkdir(exist_ok=True)
        for module in sorted((root / PACKAGE).iterdir()):
            if module.suffix in (".py", ".pyi"):
                (folder / module.name).write_bytes(module.read_bytes())


def main() -> int:
    try:
        generate()
    except (StubsError, OSError) as error:
        print(f"generate_stubs: {error}", file=sys.stderr)
        return 1
    print(f"gRPC stubs written to {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
