"""What the tests of preparing share: names in an archive, and changes to a layout."""

import zipfile
from pathlib import Path

from tests.unit.packing.conftest import Bench

GRAPH = {"model/prepared/openvino.xml", "model/prepared/openvino.bin"}

INT8 = {"model/prepared/openvino-int8.xml", "model/prepared/openvino-int8.bin"}

ALWAYS = {"model/prepared/prepared.json", "model/prepared/preprocess.json"}


def prepared_members(archive: Path) -> set[str]:
    with zipfile.ZipFile(archive) as found:
        return {name for name in found.namelist() if name.startswith("model/prepared/")}


def set_engine(bench: Bench, engine: str) -> None:
    (bench.layout.models / "small-net" / "model-config.yaml").write_text(f"handler:\n  engine: {engine}\n")


def edit_engines(bench: Bench, name: str = "base.py") -> None:
    path = bench.layout.handlers / "engines" / name
    path.write_text(path.read_text() + ("# changed\n" if path.suffix == ".py" else "// changed\n"))


def fake(bench: Bench, *lines: str) -> None:
    """A prepare of our own, for what the real one does only when something is wrong."""
    path = bench.layout.handlers / "engines" / "prepare.py"
    path.write_text("\n".join(("import os, pathlib, sys", *lines, "")))


SUCCESS = (
    "target = pathlib.Path(sys.argv[2])",
    "target.mkdir()",
    "(target / 'prepared.json').write_text('{}')",
)
