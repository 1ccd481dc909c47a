"""A local folder as the source: what is taken, what is refused and why."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from handlers.vision.labels import read_labels
from tests.unit.handlers.architectures import write_timm
from tests.unit.packing.conftest import Bench
from torchserve_models.packing import errors, read_provenance


@pytest.fixture
def folder(tmp_path: Path, resnet_folder: Path) -> Path:
    """A copy that a test may spoil; its name has what shells and archivers stumble over."""
    return Path(shutil.copytree(resnet_folder, tmp_path / "mein Netz, größer*[1]"))


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.full
def test_an_unknown_name_gets_task_and_defaults_from_the_folder(bench: Bench, folder: Path) -> None:
    packed = bench.pack("my-net", source=folder)
    provenance = read_provenance(packed.path)
    assert packed.weights == "folder"
    assert packed.version.startswith("folder-")
    assert (provenance.task, provenance.architecture) == (
        "image-classification",
        "ResNetForImageClassification",
    )
    assert (provenance.source, provenance.license) == (folder.name, "apache-2.0")
    with zipfile.ZipFile(packed.path) as archive:
        assert archive.read("model/model.safetensors") == (folder / "model.safetensors").read_bytes()
        assert b"max_pixels" in archive.read("model-config.yaml")
        assert "model/README.md" not in archive.namelist()


@pytest.mark.full
def test_a_models_own_configuration_is_taken(bench: Bench, folder: Path) -> None:
    own = bench.layout.models / "my-net" / "model-config.yaml"
    own.parent.mkdir()
    own.write_text("batchSize: 3\nhandler:\n  engine: torch\n")
    packed = bench.pack("my-net", source=folder)
    assert read_provenance(packed.path).engine == "torch"
    with zipfile.ZipFile(packed.path) as archive:
        assert archive.read("model-config.yaml") == own.read_bytes()


@pytest.mark.full
def test_a_summarizer(bench: Bench, t5_folder: Path) -> None:
    packed = bench.pack("report", source=str(t5_folder))
    provenance = read_provenance(packed.path)
    assert (provenance.task, provenance.license) == ("summarization", None)
    assert "model/tokenizer.json" in provenance.files


def test_links_as_in_the_hubs_cache_are_followed(bench: Bench, folder: Path, tmp_path: Path) -> None:
    plain = bench.pack("my-net", source=folder)
    linked = tmp_path / "other" / folder.name
    linked.mkdir(parents=True)
    for path in folder.iterdir():
        (linked / path.name).symlink_to(os.path.relpath(path, linked))
    assert bench.pack("my-net", source=linked).sha256 == plain.sha256


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_links_to_nothing_and_pipes_are_refused(bench: Bench, folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to("nowhere")
    with pytest.raises(errors.BadSource, match=f"{name} .*does not exist"):
        bench.pack("my-net", source=folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(errors.BadSource, match="not a regular file"):
        bench.pack("my-net", source=folder)


def test_pickles_alone_are_refused(bench: Bench, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(errors.NoSafetensors, match=r"pytorch_model\.bin.*save_pretrained"):
        bench.pack("my-net", source=folder)


def test_pickles_beside_safetensors_stay_out(bench: Bench, folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    packed = bench.pack("my-net", source=folder)
    with zipfile.ZipFile(packed.path) as archive:
        names = {name for name in archive.namelist() if name.startswith("model/")}
    plain = {name for name in names if not name.startswith("model/prepared/")}
    assert plain == {"model/config.json", "model/model.safetensors", "model/preprocessor_config.json"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "LlamaForCausalLM"),
        ({"architectures": ["ResNetModel"]}, "ResNetModel"),
        ({"architectures": ["ResNetModel", "ResNetForImageClassification"]}, "ResNetModel"),
        ({"model_type": "my-own", "architectures": ["MyOwn"], "auto_map": {"AutoModel": "m.M"}}, "MyOwn"),
        ({"architectures": None}, "names no class"),
        ({"architectures": "ResNetForImageClassification"}, "names no class"),
        ({"model_type": "bert", "architectures": ["BertForSequenceClassification"]}, "Bert"),
    ],
)
def test_unknown_architectures(bench: Bench, folder: Path, changes: dict[str, object], words: str) -> None:
    edit_config(folder, **changes)
    with pytest.raises(errors.UnknownArchitecture, match=words):
        bench.pack("my-net", source=folder)


def timm_config(**changes: object) -> str:
    return json.dumps(
        {"architecture": "resnet10t", "num_classes": 3, "pretrained_cfg": {"input_size": [3, 64, 64]}}
        | changes
    )


@pytest.mark.full
def test_timms_own_format(bench: Bench, folder: Path, tmp_path: Path) -> None:
    """No preprocessor_config.json: config.json says it all."""
    own = bench.layout.models / "my-net" / "model-config.yaml"
    own.parent.mkdir()
    own.write_text("handler:\n  engine: torch\n")
    names = {"label_names": ["cat", "dog", "cow"], "model_args": {"num_classes": 3, "in_chans": 3}}
    source = tmp_path / "timm"
    write_timm(source, json.loads(timm_config(**names)))
    packed = bench.pack("my-net", source=source)
    assert read_provenance(packed.path).architecture == "timm:resnet10t"
    with zipfile.ZipFile(packed.path) as archive:
        archive.extractall(tmp_path / "unpacked")
    unpacked = tmp_path / "unpacked" / "model"
    assert not (unpacked / "preprocessor_config.json").exists()
    assert not (unpacked / "prepared" / "labels.json").exists()
    assert read_labels(unpacked) == (["cat", "dog", "cow"], "softmax")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "hf-hub:somebody/else"}, "no name of timm's"),
        ({"architecture": "local-dir:/tmp"}, "no name of timm's"),
        ({"architecture": None}, "no name of timm's"),
        ({"model_args": {"checkpoint_path": "/tmp/x"}}, "load files by"),
        ({"num_classes": 0}, "no classifier"),
    ],
)
def test_what_timm_would_fetch_from_elsewhere(
    bench: Bench, folder: Path, changes: dict[str, object], words: str
) -> None:
    (folder / "config.json").write_text(timm_config(**changes))
    with pytest.raises(errors.UnknownArchitecture, match=words):
        bench.pack("my-net", source=folder)


@pytest.mark.full
def test_pickled_weights_where_they_are_asked_for(bench: Bench, folder: Path, tmp_path: Path) -> None:
    """What is packed is what safetensors would have been, to the byte; the pickle stays out."""
    import torch
    from safetensors.torch import load_file

    expected = bench.pack("my-net", source=folder).sha256
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(errors.NoSafetensors, match=r"pytorch_model\.bin.*add --pickled"):
        bench.pack("my-net", source=folder)
    assert bench.pack("my-net", source=folder, pickled=True).sha256 == expected
    assert any("pickled weights alone" in said for said in bench.said)
    del tensors["classifier.1.weight"]
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(
        errors.BadSource, match=r"do not fit ResNetForImageClassification.*classifier\.1\.weight"
    ):
        bench.pack("my-net", source=folder, pickled=True)


def test_the_code_of_a_pickle_is_not_run(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from torchserve_models.packing.sources.convert import _transformers

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "touched",))

    (folder / "model.safetensors").unlink()
    torch.save({"a": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(SystemExit) as ended:
        _transformers("AutoModelForImageClassification", folder, tmp_path / "target")
    assert ended.value.code == 3
    assert "without running their code" in capsys.readouterr().err
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_configuration_that_is_none(bench: Bench, folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(errors.BadSource, match=r"config\.json"):
        bench.pack("my-net", source=folder)


def test_an_empty_folder(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(errors.BadSource, match=r"no config\.json"):
        bench.pack("my-net", source=tmp_path)


@pytest.mark.parametrize("cut", [0, 4, 8, 100, 20_000])
def test_weights_that_are_cut_off(bench: Bench, folder: Path, cut: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:cut])
    with pytest.raises(errors.BadSource, match="safetensors"):
        bench.pack("my-net", source=folder)


@pytest.mark.parametrize("header", [b"[1]", b'{"a": 1}', b'{"a": {"data_offsets": "x"}}', b"nonsense"])
def test_weights_with_a_wrong_header(bench: Bench, folder: Path, header: bytes) -> None:
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(errors.BadSource, match="safetensors"):
        bench.pack("my-net", source=folder)


def test_a_git_lfs_pointer(bench: Bench, folder: Path) -> None:
    (folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1\n"
    )
    with pytest.raises(errors.BadSource, match="git lfs pull"):
        bench.pack("my-net", source=folder)


@pytest.mark.parametrize(
    "shard", ["../secret.safetensors", "/etc/x.safetensors", "code.py", "missing.safetensors"]
)
def test_an_index_that_names_something_else(bench: Bench, folder: Path, shard: str) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"layer": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(errors.BadSource, match=r"index\.json"):
        bench.pack("my-net", source=folder)


def test_side_files_have_to_be_there(bench: Bench, folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(errors.BadSource, match=r"preprocessor_config\.json"):
        bench.pack("my-net", source=folder)


def test_another_task_needs_another_name(bench: Bench, t5_folder: Path) -> None:
    with pytest.raises(errors.BadSource, match="another name"):
        bench.pack("small-net", source=t5_folder)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("./nowhere", "no folder"),
        ("/nowhere/at/all", "no folder"),
        ("owner/name/", "no folder"),
        ("a/b/c", "neither a folder"),
        ("owner/na me", "neither a folder"),
        ("https://example.org/owner/name", "neither a folder"),
        ("", "neither a folder"),
    ],
)
def test_a_source_that_cannot_be_one(bench: Bench, source: str, words: str) -> None:
    with pytest.raises(errors.BadSource, match=words):
        bench.pack("my-net", source=source)


def test_a_file_is_no_source(bench: Bench, folder: Path) -> None:
    with pytest.raises(errors.BadSource, match="is a file"):
        bench.pack("my-net", source=folder / "config.json")


def test_options_that_contradict_each_other(bench: Bench, folder: Path) -> None:
    with pytest.raises(errors.BadRequest, match="two sources"):
        bench.pack("my-net", source=folder, weights="starter")
    with pytest.raises(errors.BadRequest, match="folder is always taken"):
        bench.pack("my-net", source=folder, update=True)
    with pytest.raises(errors.BadRequest, match="known are auto, pretrained, starter"):
        bench.pack(weights="best")
    with pytest.raises(errors.BadRequest, match="--update"):
        bench.pack(weights="starter", update=True)


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        ("---\nlicense: other\nlicense_name: ours\n---\n", "ours"),
        ("---\nlanguage: en\n---\nlicense: mit\n", None),
        ("---\nlicense: [\n---\n", None),
        ("license: mit\n", None),
        ("---\nlicense: mit\n", None),
        ("", None),
    ],
)
def test_the_license_of_a_card(bench: Bench, folder: Path, card: str, license: str | None) -> None:
    (folder / "README.md").write_text(card)
    assert read_provenance(bench.pack("my-net", source=folder).path).license == license


def test_an_adapter_is_refused_with_the_way_out(bench: Bench, tmp_path: Path) -> None:
    """Case 24."""
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    for with_config in (False, True):
        if with_config:
            (tmp_path / "config.json").write_text("{}")
        with pytest.raises(errors.BadSource, match=r"is an adapter \(LoRA.*merge_and_unload"):
            bench.pack("my-net", source=tmp_path)


@pytest.mark.parametrize("name", ["model_best.pth.tar", "last.pth", "checkpoint.pt"])
def test_a_lone_checkpoint_is_refused_with_the_way_out(bench: Bench, tmp_path: Path, name: str) -> None:
    """Case 24."""
    (tmp_path / name).write_bytes(b"")
    for source in (tmp_path, tmp_path / name):
        with pytest.raises(errors.BadSource, match=r"save_for_hf\(model, folder, safe_serialization=True\)"):
            bench.pack("my-net", source=source)


def labels_file(folder: Path, *labels: str) -> Path:
    path = folder / "labels.txt"
    path.write_text("\n".join(labels), encoding="utf-8")
    return path


def use_torch(bench: Bench) -> None:
    """So that nothing is converted."""
    config = bench.layout.models / "my-net" / "model-config.yaml"
    config.parent.mkdir()
    config.write_text("handler:\n  engine: torch\n")


@pytest.mark.full
def test_labels_for_a_folder(bench: Bench, folder: Path, tmp_path: Path) -> None:
    """Case 24."""
    use_torch(bench)
    bench.pack("my-net", source=folder)
    assert any("its labels are LABEL_0 to LABEL_2" in said and "--labels FILE" in said for said in bench.said)
    bench.said.clear()
    packed = bench.pack("my-net", source=folder, labels=labels_file(tmp_path, "Größe", "cat", "dog"))
    assert not any("LABEL_0" in said for said in bench.said)
    with zipfile.ZipFile(packed.path) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert read_labels(tmp_path / "unpacked" / "model") == (["Größe", "cat", "dog"], "softmax")
    assert '"id2label"' in (folder / "config.json").read_text()
    assert "Größe" not in (folder / "config.json").read_text()


def test_another_number_of_labels(bench: Bench, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.BadSource, match=r"has 2 labels, and .* is for 3"):
        bench.pack("my-net", source=folder, labels=labels_file(tmp_path, "a", "b"))


@pytest.mark.full
def test_labels_for_timms_format(bench: Bench, tmp_path: Path) -> None:
    use_torch(bench)
    source = tmp_path / "timm"
    write_timm(source, json.loads(timm_config(model_args={"num_classes": 3, "in_chans": 3})))
    packed = bench.pack("my-net", source=source, labels=labels_file(tmp_path, "a", "b", "c"))
    with zipfile.ZipFile(packed.path) as archive:
        assert json.loads(archive.read("model/config.json"))["label_names"] == ["a", "b", "c"]


def test_labels_for_a_summarizer(bench: Bench, t5_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.BadRequest, match="--labels is for image classifiers"):
        bench.pack("report", source=t5_folder, labels=labels_file(tmp_path, "a"))
