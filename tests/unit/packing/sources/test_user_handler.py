"""Packing of custom handlers: archive contents, and rejected files."""

import os
import zipfile
from pathlib import Path

import pytest

from tests.unit.packing.conftest import Bench
from torchserve_models.cli import main
from torchserve_models.packing import errors, models, read_provenance
from torchserve_models.serving.archives import preparation

SHOUT = '''
"""A minimal handler."""

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


def test_handler_without_files_is_packed(bench: Bench, handler: Path) -> None:
    packed = bench.pack("shout", handler=handler)
    provenance, inside = read_provenance(packed.path), members(packed.path)
    assert (packed.weights, provenance.task, provenance.architecture) == ("own", "own-handler", "Shout")
    assert packed.version.startswith("own-")
    assert provenance.source == "shout_handler.py"
    assert inside["shout_handler.py"] == handler.read_bytes()
    assert b'"handler": "shout_handler.py"' in inside["MAR-INF/MANIFEST.json"]
    assert "handlers/core/handler.py" in inside
    assert b"responseTimeout" in inside["model-config.yaml"]
    assert not [name for name in inside if name.startswith("model/")]


def test_files_of_the_from_folder_are_packed(bench: Bench, handler: Path, tmp_path: Path) -> None:
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
    provenance = read_provenance(packed.path)
    assert (provenance.source, provenance.license) == ("shout_handler.py, weights, all/", "mit")


def test_changed_handler_is_another_version(bench: Bench, handler: Path) -> None:
    first = bench.pack("shout", handler=handler)
    assert bench.pack("shout", handler=handler).unchanged
    handler.write_text(SHOUT + "# better\n")
    again = bench.pack("shout", handler=handler)
    assert not again.unchanged
    assert again.version != first.version


def test_configuration_of_the_handler_is_used(bench: Bench, handler: Path) -> None:
    config_file = bench.layout.models / "shout" / "model-config.yaml"
    config_file.parent.mkdir()
    config_file.write_text("batchSize: 3\n")
    assert members(bench.pack("shout", handler=handler).path)["model-config.yaml"] == b"batchSize: 3\n"


def test_serving_uses_the_archive_unchanged(bench: Bench, handler: Path) -> None:
    packed = bench.pack("shout", handler=handler)
    messages: list[str] = []
    assert preparation.prepare_archives(["shout"], "auto", bench.store, messages.append) == ["shout"]
    assert "unchanged" in messages[0]
    assert read_provenance(packed.path).version == packed.version


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("class A:\n  pass\n\nclass B:\n  pass\n", "exactly one class.*defines 2: A, B"),
        ("x = 1\n", "exactly one class.*defines none"),
        ("class A: pass\ntry:\n  import b\nexcept ImportError:\n  class B: pass\n", "defines 2: A, B"),
        ("class A: pass\nfor x in ():\n  with y:\n    if x:\n      class B: pass\n", "defines 2: A, B"),
        ("class A: pass\nB = typing.NamedTuple('B', [])\n", "defines 2: A, B.*with a tuple or dict"),
        ("B: type = namedtuple('B', 'x')\n", r"defines 1: B \(namedtuple\)"),
        ("class A:\n  def handle(self:\n", r"handler\.py, line 2 is not valid Python"),
        ("x = '\0'", "not valid Python"),
    ],
)
def test_file_without_single_handler_is_rejected(
    bench: Bench, handler: Path, content: str, words: str
) -> None:
    handler.write_text(content)
    with pytest.raises(errors.InvalidHandler, match=words):
        bench.pack("shout", handler=handler)
    assert bench.leftovers() == []


def test_function_is_a_handler(bench: Bench, handler: Path) -> None:
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
def test_nested_classes_are_ignored(bench: Bench, handler: Path, content: str) -> None:
    handler.write_text(content)
    assert read_provenance(bench.pack("shout", handler=handler).path).architecture == "A"


@pytest.mark.parametrize("name", ["demo.py", "client.py", "training.py"])
def test_names_of_other_package_modules_are_allowed(bench: Bench, handler: Path, name: str) -> None:
    packed = bench.pack("shout", handler=handler.rename(handler.with_name(name)))
    assert name in members(packed.path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("json.py", "would shadow the module 'json'"),
        ("torch.py", "would shadow the module 'torch'"),
        ("handlers.py", "would shadow the module 'handlers'"),
        ("sys.py", "would shadow the module 'sys'"),
        ("my-handler.py", "not a valid module name"),
        ("__main__.py", "not a valid module name"),
    ],
)
def test_names_that_cannot_be_imported_are_rejected(
    bench: Bench, handler: Path, name: str, words: str
) -> None:
    with pytest.raises(errors.InvalidHandler, match=words):
        bench.pack("shout", handler=handler.rename(handler.with_name(name)))


@pytest.mark.parametrize("name", ["nowhere.py", "handler.txt", "."])
def test_missing_handler_is_rejected(bench: Bench, handler: Path, name: str) -> None:
    handler.with_name("handler.txt").write_text(SHOUT)
    with pytest.raises(errors.InvalidHandler, match="not an existing Python file"):
        bench.pack("shout", handler=handler.parent / name)


def test_contradictory_options_are_rejected(bench: Bench, handler: Path) -> None:
    for options in ({"weights": "starter"}, {"update": True}, {"calibrate": "none"}):
        with pytest.raises(errors.InvalidOptions):
            bench.pack("shout", handler=handler, **options)
    with pytest.raises(errors.InvalidOptions, match="another name"):
        bench.pack("small-net", handler=handler)
    with pytest.raises(errors.InvalidSource, match="must be a folder"):
        bench.pack("shout", handler=handler, source="owner/name")


def test_dangling_links_are_rejected(bench: Bench, handler: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "model.safetensors").symlink_to("nowhere")
    with pytest.raises(errors.InvalidSource, match="does not exist"):
        bench.pack("shout", handler=handler, source=data)
    (data / "model.safetensors").unlink()
    (data / os.fsdecode(b"\xff.txt")).touch()
    with pytest.raises(errors.InvalidSource, match="not valid UTF-8"):
        bench.pack("shout", handler=handler, source=data)


def test_command_packs_a_handler(
    bench: Bench, handler: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "LAYOUT", bench.layout)
    options = ["--store", str(bench.store), "--handler", str(handler)]
    assert main(["pack", "shout", *options]) == 0
    assert "weights  own" in capsys.readouterr().out
    assert main(["pack", *options]) == 2
    assert "exactly one NAME" in capsys.readouterr().err
    handler.write_text("1 +")
    assert main(["pack", "shout", *options]) == 1
    assert "shout: error:" in capsys.readouterr().err
