"""Packing from a local model folder: packed files, and rejected folders."""

import json
import os
import zipfile
from pathlib import Path

import pytest

from handlers.vision.labels import read_labels
from tests.unit.handlers.architectures import write_timm
from tests.unit.packing.conftest import Bench
from tests.unit.packing.sources.timm_config import timm_config
from torchserve_models.packing import errors, read_provenance


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.full
def test_task_and_default_settings_are_derived_from_config_json(bench: Bench, folder: Path) -> None:
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
def test_model_config_of_the_name_is_used(bench: Bench, folder: Path) -> None:
    config_file = bench.layout.models / "my-net" / "model-config.yaml"
    config_file.parent.mkdir()
    config_file.write_text("batchSize: 3\nhandler:\n  engine: torch\n")
    packed = bench.pack("my-net", source=folder)
    assert read_provenance(packed.path).engine == "torch"
    with zipfile.ZipFile(packed.path) as archive:
        assert archive.read("model-config.yaml") == config_file.read_bytes()


@pytest.mark.full
def test_summarizer_folder_is_packed(bench: Bench, t5_folder: Path) -> None:
    packed = bench.pack("report", source=str(t5_folder))
    provenance = read_provenance(packed.path)
    assert (provenance.task, provenance.license) == ("summarization", None)
    assert "model/tokenizer.json" in provenance.files


def test_links_of_the_hub_cache_are_followed(bench: Bench, folder: Path, tmp_path: Path) -> None:
    plain = bench.pack("my-net", source=folder)
    linked = tmp_path / "other" / folder.name
    linked.mkdir(parents=True)
    for path in folder.iterdir():
        (linked / path.name).symlink_to(os.path.relpath(path, linked))
    assert bench.pack("my-net", source=linked).sha256 == plain.sha256


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_dangling_links_and_pipes_are_rejected(bench: Bench, folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to("nowhere")
    with pytest.raises(errors.InvalidSource, match=f"{name} .*does not exist"):
        bench.pack("my-net", source=folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(errors.InvalidSource, match="not a regular file"):
        bench.pack("my-net", source=folder)


def test_folder_with_only_pickles_is_rejected(bench: Bench, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(errors.NoSafetensors, match=r"pytorch_model\.bin.*save_pretrained"):
        bench.pack("my-net", source=folder)


def test_pickles_beside_safetensors_are_not_packed(bench: Bench, folder: Path) -> None:
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
        ({"architectures": None}, "has no class name"),
        ({"architectures": "ResNetForImageClassification"}, "has no class name"),
        ({"model_type": "bert", "architectures": ["BertForSequenceClassification"]}, "Bert"),
    ],
)
def test_unknown_architectures_are_rejected(
    bench: Bench, folder: Path, changes: dict[str, object], words: str
) -> None:
    edit_config(folder, **changes)
    with pytest.raises(errors.UnknownArchitecture, match=words):
        bench.pack("my-net", source=folder)


@pytest.mark.full
def test_timm_format_is_packed(bench: Bench, folder: Path, tmp_path: Path) -> None:
    config_file = bench.layout.models / "my-net" / "model-config.yaml"
    config_file.parent.mkdir()
    config_file.write_text("handler:\n  engine: torch\n")
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
        ({"architecture": "hf-hub:example/other-model"}, "not a timm model name"),
        ({"architecture": "local-dir:/tmp"}, "not a timm model name"),
        ({"architecture": None}, "not a timm model name"),
        ({"model_args": {"checkpoint_path": "/tmp/x"}}, "invalid `model_args`"),
        ({"num_classes": 0}, "no classifier"),
    ],
)
def test_timm_arguments_that_load_files_are_rejected(
    bench: Bench, folder: Path, changes: dict[str, object], words: str
) -> None:
    (folder / "config.json").write_text(timm_config(**changes))
    with pytest.raises(errors.UnknownArchitecture, match=words):
        bench.pack("my-net", source=folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_invalid_configuration_is_rejected(bench: Bench, folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(errors.InvalidSource, match=r"config\.json"):
        bench.pack("my-net", source=folder)


def test_empty_folder_is_rejected(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidSource, match=r"no config\.json"):
        bench.pack("my-net", source=tmp_path)


@pytest.mark.parametrize("cut", [0, 4, 8, 100, 20_000])
def test_truncated_weights_are_rejected(bench: Bench, folder: Path, cut: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:cut])
    with pytest.raises(errors.InvalidSource, match="safetensors"):
        bench.pack("my-net", source=folder)


@pytest.mark.parametrize("header", [b"[1]", b'{"a": 1}', b'{"a": {"data_offsets": "x"}}', b"nonsense"])
def test_weights_with_invalid_header_are_rejected(bench: Bench, folder: Path, header: bytes) -> None:
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(errors.InvalidSource, match="safetensors"):
        bench.pack("my-net", source=folder)


def test_git_lfs_pointer_is_rejected(bench: Bench, folder: Path) -> None:
    (folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1\n"
    )
    with pytest.raises(errors.InvalidSource, match="git lfs pull"):
        bench.pack("my-net", source=folder)


@pytest.mark.parametrize(
    "shard", ["../secret.safetensors", "/etc/x.safetensors", "code.py", "missing.safetensors"]
)
def test_index_with_invalid_names_is_rejected(bench: Bench, folder: Path, shard: str) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"layer": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(errors.InvalidSource, match=r"index\.json"):
        bench.pack("my-net", source=folder)


def test_missing_preprocessor_config_is_rejected(bench: Bench, folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(errors.InvalidSource, match=r"preprocessor_config\.json"):
        bench.pack("my-net", source=folder)


def test_model_of_another_task_is_rejected(bench: Bench, t5_folder: Path) -> None:
    with pytest.raises(errors.InvalidSource, match="another name"):
        bench.pack("small-net", source=t5_folder)


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
def test_license_is_read_from_the_model_card(
    bench: Bench, folder: Path, card: str, license: str | None
) -> None:
    (folder / "README.md").write_text(card)
    assert read_provenance(bench.pack("my-net", source=folder).path).license == license


def test_adapter_is_rejected_with_a_solution(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    for with_config in (False, True):
        if with_config:
            (tmp_path / "config.json").write_text("{}")
        with pytest.raises(errors.InvalidSource, match=r"is an adapter \(LoRA.*merge_and_unload"):
            bench.pack("my-net", source=tmp_path)


@pytest.mark.parametrize("name", ["model_best.pth.tar", "last.pth", "checkpoint.pt"])
def test_single_checkpoint_is_rejected_with_a_solution(bench: Bench, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    for source in (tmp_path, tmp_path / name):
        with pytest.raises(
            errors.InvalidSource, match=r"save_for_hf\(model, folder, safe_serialization=True\)"
        ):
            bench.pack("my-net", source=source)
