"""What is prepared at packing: its files in the archive, and the cache."""

import json
import platform
import shutil
import signal
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tools import needs
from tests.unit.packing.conftest import Bench
from tests.unit.packing.preparing import (
    ALWAYS,
    GRAPH,
    SUCCESS,
    edit_engines,
    fake,
    prepared_members,
    set_engine,
)
from tests.unit.packing.test_cli import start
from torchserve_models.packing import errors, read_provenance
from torchserve_models.packing.artifacts import preparation
from torchserve_models.packing.artifacts.cache import KEPT, PARTIAL
from torchserve_models.packing.artifacts.preparation import ArtifactRequest
from torchserve_models.packing.sources.resolve import PackOptions, find
from torchserve_models.packing.tasks import SUMMARIZATION


def test_the_archive_holds_what_was_prepared(bench: Bench) -> None:
    packed = bench.pack(weights="starter")
    provenance = read_provenance(packed.path)
    assert prepared_members(packed.path) == ALWAYS | GRAPH
    assert set(provenance.files) >= ALWAYS | GRAPH
    with zipfile.ZipFile(packed.path) as archive:
        assert provenance.prepared == json.loads(archive.read("model/prepared/prepared.json"))


@pytest.mark.full
def test_the_engine_is_the_configurations(bench: Bench) -> None:
    set_engine(bench, "torch")
    assert prepared_members(bench.pack(weights="starter").path) == ALWAYS


@needs("g++")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="not x86-64")
@pytest.mark.full
def test_a_summarizers_attention_is_compiled(
    bench: Bench,
    own_cache: Path,
    t5_folder: Path,
    no_process: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, facts = "model/prepared/step-attention.so", "model/prepared/prepared.json"
    with monkeypatch.context() as patched:
        patched.setenv("PATH", "/nowhere")
        without = bench.pack("report", source=t5_folder)
        assert prepared_members(without.path) == {facts}
        assert without.prepared == "attention not compiled (g++ is not installed)"
    first = bench.pack("report", source=t5_folder)
    assert prepared_members(first.path) == {code, facts}
    assert first.prepared == "attention compiled for AVX-512"
    made = read_provenance(first.path).prepared["step_attention"]
    assert made["compiler"].startswith("g++ ")
    assert "avx512f" in made["cpu_flags"]
    no_process()
    monkeypatch.setenv("PATH", "/nowhere")
    assert bench.pack("report", source=t5_folder).sha256 == first.sha256


def test_nothing_changed_nothing_prepared(bench: Bench, no_process: Callable[[], None]) -> None:
    first = bench.pack(weights="starter")
    no_process()
    again = bench.pack(weights="starter")
    assert again.unchanged
    assert again.sha256 == first.sha256


@pytest.mark.full
def test_a_fresh_cache_gives_the_same_archive(bench: Bench, own_cache: Path, photos: Path) -> None:
    first = bench.pack(weights="starter", calibrate=photos)
    shutil.rmtree(own_cache)
    first.path.unlink()
    assert bench.pack(weights="starter", calibrate=photos).sha256 == first.sha256


def test_the_key_is_of_all_that_decides(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = find(PackOptions("small-net", "starter", None, False), bench.layout, lambda _: None, tmp_path)
    artifact_request = ArtifactRequest("small-net", source, "auto", "auto", tmp_path / "x.mar", bench.layout)
    other_weights = replace(source, files=(replace(source.files[0], sha256="0" * 64), *source.files[1:]))
    keys = [
        preparation._key(artifact_request, None),
        preparation._key(artifact_request, preparation.Images(300, "1")),
        preparation._key(artifact_request, preparation.Images(300, "2")),
        preparation._key(replace(artifact_request, source=other_weights), None),
        preparation._key(replace(artifact_request, engine="torch"), None),
        preparation._key(replace(artifact_request, engine="torch-compiled"), None),
    ]
    assert (
        preparation._key(replace(artifact_request, name="another", archive=tmp_path / "y.mar"), None)
        == keys[0]
    )
    monkeypatch.setattr(preparation, "_cpu", lambda: ["another machine"])
    assert preparation._key(artifact_request, None) == keys[0]
    assert preparation._key(replace(artifact_request, precision="fp32"), None) == keys[0]
    keys.append(preparation._key(replace(artifact_request, engine="torch-compiled"), None))
    keys.append(preparation._key(replace(artifact_request, engine="torch-compiled", precision="fp32"), None))
    monkeypatch.setattr(preparation.provenance, "libraries", lambda: {"openvino": "1"})
    keys.append(preparation._key(artifact_request, None))
    text = replace(artifact_request, source=replace(source, task=SUMMARIZATION))
    keys += [preparation._key(text, None), preparation._key(replace(text, precision="bf16"), None)]
    with monkeypatch.context() as patched:
        patched.setattr(preparation.platform, "machine", lambda: "another")
        keys.append(preparation._key(text, None))
    edit_engines(bench)
    keys.append(preparation._key(artifact_request, None))
    edit_engines(bench, "seq2seq/step_attention.cpp")
    keys.append(preparation._key(artifact_request, None))
    assert len(set(keys)) == len(keys)


def test_the_cache_keeps_what_was_used_last(bench: Bench, own_cache: Path) -> None:
    fake(bench, *SUCCESS)
    engines = ["auto", "torch", "openvino", "torch-compiled"]
    made: list[set[str]] = []
    for engine in engines:
        set_engine(bench, engine)
        bench.pack(weights="starter")
        set_engine(bench, "auto")
        bench.pack(weights="starter")
        made.append({path.name for path in (own_cache / "small-net").iterdir() if path.is_dir()})
    assert [len(names) for names in made] == [1, 2, 3, KEPT]
    assert made[0] < made[-1]


FAILURES = [
    (["raise ValueError('no such layer')"], errors.NotPrepared, "small-net .*auto failed: .*no such layer"),
    ([f"os.kill(os.getpid(), {signal.SIGKILL:d})"], errors.NotPrepared, "ended by SIGKILL"),
    (["raise SystemExit(3)"], errors.NotPrepared, "no message"),
    (["raise OSError(28, 'No space left on device')"], errors.NoSpace, "No space left"),
    (["raise RuntimeError('basic_ios::clear: iostream error')"], errors.NoSpace, "No space left"),
    (["pass"], errors.PackingError, "preparing small-net"),
]


@pytest.mark.parametrize(("lines", "kind", "words"), FAILURES)
def test_a_failure_is_plain_and_changes_nothing(
    bench: Bench, own_cache: Path, lines: list[str], kind: type[Exception], words: str
) -> None:
    fake(bench, *SUCCESS)
    first = bench.pack(weights="starter")
    content, cached = first.path.read_bytes(), set(own_cache.rglob("*"))
    fake(bench, *lines)
    with pytest.raises(kind, match=words):
        bench.pack(weights="starter")
    assert first.path.read_bytes() == content
    assert bench.leftovers() == []
    assert set(own_cache.rglob("*")) == cached


def test_what_a_killed_pack_left_is_no_result(bench: Bench, own_cache: Path) -> None:
    half = own_cache / "small-net" / f"{PARTIAL}1" / "openvino.xml"
    half.parent.mkdir(parents=True)
    half.write_text("<net")
    fake(bench, *SUCCESS)
    assert prepared_members(bench.pack(weights="starter").path) == {"model/prepared/prepared.json"}
    assert not half.parent.exists()


def test_a_compiled_network_is_for_the_configured_precision(bench: Bench, own_cache: Path) -> None:
    fake(bench, *SUCCESS, "(target / 'asked').write_text(' '.join(sys.argv[3:]))")
    path = bench.layout.models / "small-net" / "model-config.yaml"
    path.write_text("handler:\n  engine: torch-compiled\n  precision: bf16\n")
    with zipfile.ZipFile(bench.pack(weights="starter").path) as archive:
        assert archive.read("model/prepared/asked") == b"--engine torch-compiled --precision bf16"


def test_an_interrupted_pack_ends_the_process(bench: Bench, own_cache: Path) -> None:
    fake(
        bench,
        "import time",
        "target = pathlib.Path(sys.argv[2])",
        "target.mkdir()",
        "(target / 'half').write_text('')",
        "target.with_name('pid').write_text(str(os.getpid()))",
        "time.sleep(600)",
    )
    pid = own_cache / "small-net" / "pid"
    process = start(bench, "small-net", "--weights", "starter")
    try:
        deadline = time.monotonic() + 60
        while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143
    assert not Path("/proc", pid.read_text()).exists()
    assert list(own_cache.rglob("*")) == [pid.parent, pid]
    assert not bench.store.exists()
