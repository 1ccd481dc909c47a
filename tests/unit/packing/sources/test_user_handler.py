"""Somebody's own handler as the source: what goes into the archive, and what is refused before a worker could die."""

import os
import zipfile
from pathlib import Path

import pytest

from tests.unit.packing.conftest import Bench
from torchserve_models.packing import errors, read_provenance
from torchserve_models.packing.cli import main
from torchserve_models.serving.archives import preparation

SHOUT = '''
"""The least handler."""

from handlers.core.handler import Handler


class Shout(Handler):
    pass
'''


@pytest.fixture
def handler(tmp_path: Path) -> Path:
    path = tmp_path / "own" / "shout_handler.py"
    path.parent.mkdir()
    path.write_text(SHOUT)
    return path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_handler_alone(bench: Bench, handler: Path) -> None:
    packed = bench.pack("shout", handler=handler)
    made, inside = read_provenance(packed.path), members(packed.path)
    assert (packed.weights, made.task, made.architecture) == ("own", "own-handler", "Shout")
    assert packed.version.startswith("own-")
    assert made.source == "shout_handler.py"
    assert inside["shout_handler.py"] == handler.read_bytes()
    assert b'"handler": "shout_handler.py"' in inside["MAR-INF/MANIFEST.json"]
    assert "handlers/core/handler.py" in inside
    assert b"responseTimeout" in inside["model-config.yaml"]
    assert not [name for name in inside if name.startswith("model/")]


def test_it_gets_the_files_of_its_folder(bench: Bench, handler: Path, tmp_path: Path) -> None:
    data = tmp_path / "weights, all"
    for name in ("a.safetensors", "words/de.txt", ".git/config", "__pycache__/x.pyc", "words/.hidden"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(name.encode())
    (data / "README.md").write_text("---\nlicense: mit\n---\n")
    packed = bench.pack("shout", handler=str(handler), source=data)
    inside = members(packed.path)
    assert {name for name in inside if name.startswith("model/")} == {
        "model/a.safetensors",
        "model/words/de.txt",
        "model/README.md",
    }
    assert inside["model/words/de.txt"] == b"words/de.txt"
    made = read_provenance(packed.path)
    assert (made.source, made.license) == ("shout_handler.py, weights, all/", "mit")


def test_the_same_again_is_unchanged_and_another_handler_is_another_version(
    bench: Bench, handler: Path
) -> None:
    first = bench.pack("shout", handler=handler)
    assert bench.pack("shout", handler=handler).unchanged
    handler.write_text(SHOUT + "# better\n")
    again = bench.pack("shout", handler=handler)
    assert not again.unchanged
    assert again.version != first.version


def test_its_own_configuration(bench: Bench, handler: Path) -> None:
    own = bench.layout.models / "shout" / "model-config.yaml"
    own.parent.mkdir()
    own.write_text("batchSize: 3\n")
    assert members(bench.pack("shout", handler=handler).path)["model-config.yaml"] == b"batchSize: 3\n"


def test_serving_takes_it_as_it_is(bench: Bench, handler: Path) -> None:
    packed = bench.pack("shout", handler=handler)
    said: list[str] = []
    assert preparation.prepare_archives(["shout"], "auto", bench.store, said.append) == ["shout"]
    assert "unchanged" in said[0]
    assert read_provenance(packed.path).version == packed.version


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("class A:\n  pass\n\nclass B:\n  pass\n", "exactly one class.*it defines 2: A, B"),
        ("x = 1\n", "exactly one class.*it defines none"),
        ("class A: pass\ntry:\n  import b\nexcept ImportError:\n  class B: pass\n", "defines 2: A, B"),
        ("class A: pass\nfor x in ():\n  with y:\n    if x:\n      class B: pass\n", "defines 2: A, B"),
        ("class A: pass\nB = typing.NamedTuple('B', [])\n", "defines 2: A, B.*take a tuple or a dict"),
        ("B: type = namedtuple('B', 'x')\n", r"defines 1: B \(namedtuple\)"),
        ("class A:\n  def handle(self:\n", r"handler\.py, line 2 is not valid Python"),
        ("x = '\0'", "not valid Python"),
    ],
)
def test_a_file_that_torchserve_could_not_take(bench: Bench, handler: Path, content: str, words: str) -> None:
    handler.write_text(content)
    with pytest.raises(errors.BadHandler, match=words):
        bench.pack("shout", handler=handler)
    assert bench.leftovers() == []


def test_a_function_is_a_handler_too(bench: Bench, handler: Path) -> None:
    handler.write_text("class A: pass\nclass B: pass\ndef handle(data, context):\n    return data\n")
    assert read_provenance(bench.pack("shout", handler=handler).path).architecture == "handle"


@pytest.mark.parametrize(
    "content",
    [
        "if x:\n  class A: pass\nelse:\n  class A: pass\n",
        "class A:\n  class B: pass\n  C = namedtuple('C', 'x')\n",
        "class A: pass\ndef f():\n  class B: pass\n",
    ],
)
def test_classes_that_torchserve_does_not_count(bench: Bench, handler: Path, content: str) -> None:
    handler.write_text(content)
    assert read_provenance(bench.pack("shout", handler=handler).path).architecture == "A"


@pytest.mark.parametrize("name", ["demo.py", "client.py", "training.py"])
def test_names_of_what_no_archive_holds(bench: Bench, handler: Path, name: str) -> None:
    packed = bench.pack("shout", handler=handler.rename(handler.with_name(name)))
    assert name in members(packed.path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("json.py", "would hide the module 'json'"),
        ("torch.py", "would hide the module 'torch'"),
        ("handlers.py", "would hide the module 'handlers'"),
        ("sys.py", "would hide the module 'sys'"),
        ("my-handler.py", "cannot be imported"),
        ("__main__.py", "cannot be imported"),
    ],
)
def test_names_that_a_worker_could_not_import(bench: Bench, handler: Path, name: str, words: str) -> None:
    with pytest.raises(errors.BadHandler, match=words):
        bench.pack("shout", handler=handler.rename(handler.with_name(name)))


@pytest.mark.parametrize("name", ["nowhere.py", "handler.txt", "."])
def test_no_such_file(bench: Bench, handler: Path, name: str) -> None:
    handler.with_name("handler.txt").write_text(SHOUT)
    with pytest.raises(errors.BadHandler, match="no Python file"):
        bench.pack("shout", handler=handler.parent / name)


def test_options_that_do_not_go_with_it(bench: Bench, handler: Path) -> None:
    for options in ({"weights": "starter"}, {"update": True}, {"calibrate": "none"}):
        with pytest.raises(errors.BadRequest):
            bench.pack("shout", handler=handler, **options)
    with pytest.raises(errors.BadRequest, match="another name"):
        bench.pack("small-net", handler=handler)
    with pytest.raises(errors.BadSource, match="takes a folder"):
        bench.pack("shout", handler=handler, source="owner/name")


def test_links_to_nothing_are_refused(bench: Bench, handler: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "model.safetensors").symlink_to("nowhere")
    with pytest.raises(errors.BadSource, match="does not exist"):
        bench.pack("shout", handler=handler, source=data)
    (data / "model.safetensors").unlink()
    (data / os.fsdecode(b"\xff.txt")).touch()
    with pytest.raises(errors.BadSource, match="not UTF-8"):
        bench.pack("shout", handler=handler, source=data)


def test_the_command(bench: Bench, handler: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--store", str(bench.store), "--handler", str(handler)]
    assert main(["shout", *options], bench.layout) == 0
    assert "weights  own" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(options, bench.layout)
    assert "exactly one NAME" in capsys.readouterr().err
    handler.write_text("1 +")
    assert main(["shout", *options], bench.layout) == 1
    assert "shout: error:" in capsys.readouterr().err
