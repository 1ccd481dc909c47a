"""Earlier archives are kept in the store for rollbacks."""

import json
import zipfile
from pathlib import Path

import pytest

from tests.unit.packing.conftest import Bench
from torchserve_models.packing import read_provenance
from torchserve_models.packing.archive import earlier_versions
from torchserve_models.packing.archive.provenance import Provenance


def put(store: Path, name: str, version: str, file: str | None = None) -> Path:
    provenance = Provenance(name, version, "summarization", "folder", "x", None, {}, None, {}, "auto", "A")
    path = store / f"{file or name}.mar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("provenance.json", provenance.as_json())
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": name}}))
    return path


def versions(store: Path) -> dict[str, str]:
    return {path.name: read_provenance(path).version for path in sorted(store.glob("*.mar"))}


def replace(store: Path, version: str, count: int) -> None:
    """Replace the archive as `pack` does."""
    path = store / "net.mar"
    earlier_versions.keep(path, version)
    new = put(store, "net", version, "new")
    new.replace(path)
    earlier_versions.prune(path, count)


def test_most_recently_replaced_archives_are_kept(tmp_path: Path) -> None:
    put(tmp_path, "net", "v1")
    for version in ("v2", "v3", "v4"):
        replace(tmp_path, version, 2)
    assert versions(tmp_path) == {"net.mar": "v4", "net-v2.mar": "v2", "net-v3.mar": "v3"}
    replace(tmp_path, "v2", 2)  # back again
    assert versions(tmp_path) == {"net.mar": "v2", "net-v3.mar": "v3", "net-v4.mar": "v4"}


def test_archives_of_other_models_are_kept(tmp_path: Path) -> None:
    put(tmp_path, "net", "v1")
    put(tmp_path, "net-large", "v1")
    put(tmp_path, "net-large", "v0", "net-large-v0")
    (tmp_path / "net-mine.mar").write_bytes(b"not ours")
    replace(tmp_path, "v2", 1)
    replace(tmp_path, "v3", 1)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"net.mar", "net-v2.mar", "net-large.mar", "net-large-v0.mar", "net-mine.mar"}


def test_missing_or_foreign_archive_is_not_kept(tmp_path: Path) -> None:
    assert earlier_versions.keep(tmp_path / "net.mar", "v1") is None
    (tmp_path / "net.mar").write_bytes(b"not ours")
    assert earlier_versions.keep(tmp_path / "net.mar", "v1") is None


@pytest.mark.full
def test_pack_keeps_the_replaced_archive(bench: Bench) -> None:
    model_config = bench.layout.models / "small-net" / "model-config.yaml"
    model_config.write_text("batchSize: 1\nhandler:\n  engine: torch\n")
    first = bench.pack(weights="starter")
    content = first.path.read_bytes()
    assert bench.pack(weights="starter").unchanged
    assert [path.name for path in bench.store.glob("*.mar")] == ["small-net.mar"]
    model_config.write_text("batchSize: 2\nhandler:\n  engine: torch\n")
    second = bench.pack(weights="starter")
    earlier = bench.store / f"small-net-{first.version}.mar"
    assert earlier.read_bytes() == content
    assert any(earlier.name in message for message in bench.messages)
    model_config.write_text("batchSize: 3\nhandler:\n  engine: torch\n")
    bench.pack(weights="starter")
    assert {path.name for path in bench.store.glob("*.mar")} == {
        "small-net.mar",
        f"small-net-{second.version}.mar",
    }
    model_config.write_text("batchSize: 4\nhandler:\n  engine: torch\n")
    bench.pack(weights="starter", keep=0)
    assert [path.name for path in bench.store.glob("*.mar")] == ["small-net.mar"]
