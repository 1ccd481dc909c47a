"""What is prepared at packing: its files in the archive, the cache, int8 and how long it is kept."""

import json
import platform
import shutil
import signal
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from packing import errors, prepare, read_provenance
from packing.cache import KEPT, PARTIAL
from packing.prepare import Wanted
from packing.sources import Wish, find
from packing.tasks import SUMMARIZATION
from tests.unit.packing.conftest import Bench
from tests.unit.packing.test_cli import start

GRAPH = {"model/prepared/openvino.xml", "model/prepared/openvino.bin"}
INT8 = {"model/prepared/openvino-int8.xml", "model/prepared/openvino-int8.bin"}
ALWAYS = {"model/prepared/prepared.json", "model/prepared/preprocess.json"}


@pytest.fixture
def own_cache(bench: Bench) -> Path:
    """An empty cache in place of the one that the tests share."""
    bench.layout.prepared.unlink()
    return bench.layout.prepared


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(random.integers(0, 256, (40, 48, 3), np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and from then on a pack that prepares anything fails the test."""
    return lambda: monkeypatch.setattr(prepare, "_run", lambda *_: pytest.fail("prepared again"))


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


def test_the_archive_holds_what_was_prepared(bench: Bench) -> None:
    packed = bench.pack(weights="starter")
    provenance = read_provenance(packed.path)
    assert prepared_members(packed.path) == ALWAYS | GRAPH
    assert set(provenance.files) >= ALWAYS | GRAPH
    with zipfile.ZipFile(packed.path) as archive:
        assert provenance.prepared == json.loads(archive.read("model/prepared/prepared.json"))


def test_the_engine_is_the_configurations(bench: Bench) -> None:
    set_engine(bench, "torch")
    assert prepared_members(bench.pack(weights="starter").path) == ALWAYS


@pytest.mark.skipif(shutil.which("g++") is None or platform.machine() != "x86_64", reason="no g++ for x86-64")
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


def test_what_was_calibrated_may_become_a_summarizer(
    bench: Bench, t5_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "_calibration_of", lambda archive: prepare.Pictures(300, "1"))
    assert not prepared_members(bench.pack("report", source=t5_folder).path) & INT8
    assert not any("WARNING" in line for line in bench.said)


def test_text_is_not_calibrated(bench: Bench, t5_folder: Path, photos: Path) -> None:
    with pytest.raises(errors.BadRequest, match=r"--calibrate is for image.*model for summarization"):
        bench.pack("report", source=t5_folder, calibrate=photos)


def test_nothing_changed_nothing_prepared(bench: Bench, no_process: Callable[[], None]) -> None:
    first = bench.pack(weights="starter")
    no_process()
    again = bench.pack(weights="starter")
    assert again.unchanged
    assert again.sha256 == first.sha256


def test_a_fresh_cache_gives_the_same_archive(bench: Bench, own_cache: Path, photos: Path) -> None:
    first = bench.pack(weights="starter", calibrate=photos)
    shutil.rmtree(own_cache)
    first.path.unlink()
    assert bench.pack(weights="starter", calibrate=photos).sha256 == first.sha256


def test_the_key_is_of_all_that_decides(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = find(Wish("small-net", "starter", None, False), bench.layout, lambda _: None, tmp_path)
    wanted = Wanted("small-net", source, "auto", "auto", tmp_path / "x.mar", bench.layout)
    other_weights = replace(source, files=(replace(source.files[0], sha256="0" * 64), *source.files[1:]))
    keys = [
        prepare._key(wanted, None),
        prepare._key(wanted, prepare.Pictures(300, "1")),
        prepare._key(wanted, prepare.Pictures(300, "2")),
        prepare._key(replace(wanted, source=other_weights), None),
        prepare._key(replace(wanted, engine="torch"), None),
        prepare._key(replace(wanted, engine="torch-compiled"), None),
    ]
    assert prepare._key(replace(wanted, name="another", archive=tmp_path / "y.mar"), None) == keys[0]
    monkeypatch.setattr(prepare, "_cpu", lambda: ["another machine"])
    assert prepare._key(wanted, None) == keys[0]
    assert prepare._key(replace(wanted, precision="fp32"), None) == keys[0]
    keys.append(prepare._key(replace(wanted, engine="torch-compiled"), None))
    keys.append(prepare._key(replace(wanted, engine="torch-compiled", precision="fp32"), None))
    monkeypatch.setattr(prepare.provenance, "libraries", lambda: {"openvino": "1"})
    keys.append(prepare._key(wanted, None))
    text = replace(wanted, source=replace(source, task=SUMMARIZATION))
    keys += [prepare._key(text, None), prepare._key(replace(text, precision="bf16"), None)]
    with monkeypatch.context() as patched:
        patched.setattr(prepare.platform, "machine", lambda: "another")
        keys.append(prepare._key(text, None))
    edit_engines(bench)
    keys.append(prepare._key(wanted, None))
    edit_engines(bench, "seq2seq/step_attention.cpp")
    keys.append(prepare._key(wanted, None))
    assert len(set(keys)) == len(keys)


def test_the_cache_keeps_what_was_used_last(bench: Bench, own_cache: Path) -> None:
    fake(bench, *SUCCESS)
    engines = ["auto", *"abc"]
    made: list[set[str]] = []
    for engine in engines:
        set_engine(bench, engine)
        bench.pack(weights="starter")
        set_engine(bench, "auto")
        bench.pack(weights="starter")
        made.append({path.name for path in (own_cache / "small-net").iterdir() if path.is_dir()})
    assert [len(names) for names in made] == [1, 2, 3, KEPT]
    assert made[0] < made[-1]


SUCCESS = (
    "target = pathlib.Path(sys.argv[2])",
    "target.mkdir()",
    "(target / 'prepared.json').write_text('{}')",
)
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


def test_int8_is_made_and_kept(bench: Bench, photos: Path, no_process: Callable[[], None]) -> None:
    plain = bench.pack(weights="starter")
    first = bench.pack(weights="starter", calibrate=photos)
    assert prepared_members(first.path) == ALWAYS | GRAPH | INT8
    assert first.version != plain.version
    facts = read_provenance(first.path).prepared
    assert facts["calibration"]["pictures"] == 8
    no_process()
    bench.said.clear()
    again = bench.pack(weights="starter")
    assert again.unchanged
    assert any("int8 as calibrated before, with 8 pictures" in line for line in bench.said)
    assert bench.pack(weights="starter", calibrate=photos).unchanged
    dropped = bench.pack(weights="starter", calibrate="none")
    assert dropped.sha256 == plain.sha256
    assert bench.pack(weights="starter").unchanged


def test_int8_is_made_again_from_the_same_folder(bench: Bench, own_cache: Path, photos: Path) -> None:
    first = bench.pack(weights="starter", calibrate=photos)
    edit_engines(bench)
    bench.said.clear()
    again = bench.pack(weights="starter")
    assert not again.unchanged
    assert prepared_members(again.path) == prepared_members(first.path)
    assert any(f"int8 from 8 pictures of {photos}" in line for line in bench.said)


def test_int8_is_not_lost_without_a_word(bench: Bench, own_cache: Path, photos: Path, tmp_path: Path) -> None:
    lent = shutil.copytree(photos, tmp_path / "lent")
    bench.pack(weights="starter", calibrate=lent)
    shutil.rmtree(lent)
    edit_engines(bench)
    bench.said.clear()
    assert prepared_members(bench.pack(weights="starter").path) == ALWAYS | GRAPH
    assert any(
        "WARNING: packing without int8" in line
        and f"no folder {lent}" in line
        and "--calibrate FOLDER" in line
        for line in bench.said
    )


def test_another_engine_drops_int8_with_a_word(bench: Bench, photos: Path) -> None:
    bench.pack(weights="starter", calibrate=photos)
    set_engine(bench, "torch")
    assert prepared_members(bench.pack(weights="starter").path) == ALWAYS
    assert any(
        "WARNING: packing without int8" in line and "engine is torch now" in line for line in bench.said
    )


def test_int8_that_agrees_too_seldom_is_said(bench: Bench, own_cache: Path) -> None:
    facts = {"openvino": {"version": "1", "int8": {"pictures": 300, "agreement": 0.91}}}
    fake(bench, *SUCCESS[:-1], f"(target / 'prepared.json').write_text({json.dumps(facts)!r})")
    bench.pack(weights="starter")
    assert any("WARNING: int8 labels only 91.0%" in line for line in bench.said)


def test_a_compiled_network_is_for_the_configured_precision(bench: Bench, own_cache: Path) -> None:
    fake(bench, *SUCCESS, "(target / 'asked').write_text(' '.join(sys.argv[3:]))")
    path = bench.layout.models / "small-net" / "model-config.yaml"
    path.write_text("handler:\n  engine: torch-compiled\n  precision: bf16\n")
    with zipfile.ZipFile(bench.pack(weights="starter").path) as archive:
        assert archive.read("model/prepared/asked") == b"--engine torch-compiled --precision bf16"


def test_int8_that_cannot_be_made(
    bench: Bench, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(errors.BadRequest, match="no folder"):
        bench.pack(weights="starter", calibrate=tmp_path / "nowhere")
    set_engine(bench, "torch")
    with pytest.raises(
        errors.BadRequest, match="int8 needs OpenVINO, and small-net asks for the engine torch"
    ):
        bench.pack(weights="starter", calibrate=photos)
    set_engine(bench, "openvino")
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(errors.BadRequest, match="scripts/setup --calibrate"):
        bench.pack("my-net", source=bench.layout.starter("small-net"), calibrate=photos)
    assert not bench.store.exists()


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
