"""Helpers of the preparation tests."""

import zipfile
from pathlib import Path

from tests.unit.packing.conftest import Bench

GRAPH = {"model/prepared/openvino.xml", "model/prepared/openvino.bin"}

INT8 = {
    "model/prepared/int8-check.safetensors",
    "model/prepared/openvino-int8.xml",
    "model/prepared/openvino-int8.bin",
}

ALWAYS = {"model/prepared/prepared.json", "model/prepared/preprocess.json"}


def prepared_members(archive: Path) -> set[str]:
    with zipfile.ZipFile(archive) as file:
        return {name for name in file.namelist() if name.startswith("model/prepared/")}


def set_engine(bench: Bench, engine: str) -> None:
    (bench.layout.models / "small-net" / "model-config.yaml").write_text(f"handler:\n  engine: {engine}\n")


def edit_handlers(bench: Bench, name: str = "engines/base.py") -> None:
    path = bench.layout.handlers / name
    path.write_text(path.read_text() + "# changed\n")


def fake(bench: Bench, *lines: str) -> None:
    """Make the preparation process run `lines` and exit when it imports the engines."""
    path = bench.layout.handlers / "engines" / "__init__.py"
    path.write_text("\n".join(("import os, pathlib, sys", *lines, "raise SystemExit(0)", "")))


FILES = sorted(name.rpartition("/")[2] for name in ALWAYS | GRAPH)
INT8_FILES = sorted(name.rpartition("/")[2] for name in INT8)
CALIBRATION = (
    "target = pathlib.Path(sys.argv[2])",
    "target.mkdir()",
    f"for name in {FILES} + ({INT8_FILES} if '--images' in sys.argv else []):",
    "    (target / name).write_text('{}')",
)
"""Lines for `fake` that write empty files in place of those of an image classifier, with int8 if there are images."""

SUCCESS = (
    "target = pathlib.Path(sys.argv[2])",
    "target.mkdir()",
    "(target / 'prepared.json').write_text('{}')",
)
