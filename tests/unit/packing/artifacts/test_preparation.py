"""Preparation of an archive: its files, the cache, and failures."""

import json
import platform
import shutil
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from handlers.engines.seq2seq.step_kernels import LEVELS, library_name
from tests.tools import needs
from tests.unit.packing.conftest import Bench
from tests.unit.packing.preparing import (
    ALWAYS,
    GRAPH,
    SUCCESS,
    fake,
    prepared_members,
    set_engine,
)
from tests.unit.packing.test_pack_command import start
from torchserve_models.packing import errors, read_provenance
from torchserve_models.packing.artifacts.cache import MAX_ENTRIES, PARTIAL


def test_archive_contains_the_prepared_files(bench: Bench) -> None:
    packed = bench.pack(weights="starter")
    provenance = read_provenance(packed.path)
    assert prepared_members(packed.path) == ALWAYS | GRAPH
    assert set(provenance.files) >= ALWAYS | GRAPH
    with zipfile.ZipFile(packed.path) as archive:
        assert provenance.prepared == json.loads(archive.read("model/prepared/prepared.json"))


@pytest.mark.full
def test_torch_engine_omits_openvino_files(bench: Bench) -> None:
    set_engine(bench, "torch")
    assert prepared_members(bench.pack(weights="starter").path) == ALWAYS


@needs("g++")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="not x86-64")
@pytest.mark.full
def test_decoding_step_of_a_summarizer_is_compiled(
    bench: Bench,
    empty_cache: Path,
    t5_folder: Path,
    no_process: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    libraries = {f"model/prepared/{library_name(level)}" for level in LEVELS}
    facts_file = "model/prepared/prepared.json"
    with monkeypatch.context() as patched:
        patched.setenv("PATH", "/nowhere")
        without = bench.pack("report", source=t5_folder)
        assert prepared_members(without.path) == {facts_file}
        assert without.prepared == "decoding step not compiled (g++ is not installed)"
    first = bench.pack("report", source=t5_folder)
    assert prepared_members(first.path) == {*libraries, facts_file}
    assert first.prepared == "decoding step compiled for AVX2 and AVX-512"
    facts = read_provenance(first.path).prepared["step_kernels"]
    assert facts["compiler"].startswith("g++ ")
    assert facts["levels"] == sorted(LEVELS)
    no_process()
    monkeypatch.setenv("PATH", "/nowhere")
    assert bench.pack("report", source=t5_folder).sha256 == first.sha256


def test_unchanged_model_is_not_prepared_again(bench: Bench, no_process: Callable[[], None]) -> None:
    first = bench.pack(weights="starter")
    no_process()
    again = bench.pack(weights="starter")
    assert again.unchanged
    assert again.sha256 == first.sha256


@pytest.mark.full
def test_archive_does_not_depend_on_the_cache(bench: Bench, empty_cache: Path) -> None:
    first = bench.pack(weights="starter")
    shutil.rmtree(empty_cache)
    first.path.unlink()
    assert bench.pack(weights="starter").sha256 == first.sha256


@pytest.mark.full
def test_cache_keeps_the_entries_used_last(bench: Bench, empty_cache: Path) -> None:
    fake(bench, *SUCCESS)
    engines = ["auto", "torch", "openvino", "torch-compiled"]
    entries: list[set[str]] = []
    for engine in engines:
        set_engine(bench, engine)
        bench.pack(weights="starter")
        set_engine(bench, "auto")
        bench.pack(weights="starter")
        entries.append({path.name for path in (empty_cache / "small-net").iterdir() if path.is_dir()})
    assert [len(names) for names in entries] == [1, 2, 3, MAX_ENTRIES]
    assert entries[0] < entries[-1]


FAILURES = [
    (
        ["raise ValueError('no such layer')"],
        errors.PreparationError,
        "small-net .*auto failed: .*no such layer",
    ),
    ([f"os.kill(os.getpid(), {signal.SIGKILL:d})"], errors.PreparationError, "ended by SIGKILL"),
    (["raise SystemExit(3)"], errors.PreparationError, "no message"),
    (["raise OSError(28, 'No space left on device')"], errors.DiskFull, "No space left"),
    (["raise RuntimeError('basic_ios::clear: iostream error')"], errors.DiskFull, "No space left"),
    (["pass"], errors.PackingError, "preparing small-net"),
]


@pytest.mark.full
@pytest.mark.parametrize(("lines", "kind", "words"), FAILURES)
def test_failed_preparation_is_reported_and_changes_nothing(
    bench: Bench, empty_cache: Path, lines: list[str], kind: type[Exception], words: str
) -> None:
    fake(bench, *SUCCESS)
    first = bench.pack(weights="starter")
    content, cached = first.path.read_bytes(), set(empty_cache.rglob("*"))
    fake(bench, *lines)
    with pytest.raises(kind, match=words):
        bench.pack(weights="starter")
    assert first.path.read_bytes() == content
    assert bench.leftovers() == []
    assert set(empty_cache.rglob("*")) == cached


@pytest.mark.full
def test_partial_entry_of_a_killed_pack_is_ignored(bench: Bench, empty_cache: Path) -> None:
    half = empty_cache / "small-net" / f"{PARTIAL}1" / "openvino.xml"
    half.parent.mkdir(parents=True)
    half.write_text("<net")
    fake(bench, *SUCCESS)
    assert prepared_members(bench.pack(weights="starter").path) == {"model/prepared/prepared.json"}
    assert not half.parent.exists()


@pytest.mark.full
def test_compiled_network_has_the_configured_precision(bench: Bench, empty_cache: Path) -> None:
    fake(bench, *SUCCESS, "(target / 'arguments').write_text(' '.join(sys.argv[3:]))")
    path = bench.layout.models / "small-net" / "model-config.yaml"
    path.write_text("handler:\n  engine: torch-compiled\n  precision: bf16\n")
    with zipfile.ZipFile(bench.pack(weights="starter").path) as archive:
        assert archive.read("model/prepared/arguments") == b"--engine torch-compiled --precision bf16"


@pytest.mark.full
def test_interrupted_pack_ends_the_preparation_process(bench: Bench, empty_cache: Path) -> None:
    fake(
        bench,
        "import time",
        "target = pathlib.Path(sys.argv[2])",
        "target.mkdir()",
        "(target / 'half').write_text('')",
        "target.with_name('pid').write_text(str(os.getpid()))",
        "time.sleep(600)",
    )
    pid = empty_cache / "small-net" / "pid"
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
    assert list(empty_cache.rglob("*")) == [pid.parent, pid]
    assert not bench.store.exists()
