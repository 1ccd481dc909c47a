"""The models in models/, and validation of source.yaml."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.packing.conftest import HUB_ID, LAYOUT, Bench
from tests.unit.packing.fake_hub import FakeHub, Fault
from torchserve_models.packing import (
    PackRequest,
    default_models,
    errors,
    known_models,
    pack,
    read_provenance,
    tasks,
)
from torchserve_models.packing.archive.model_config import read_model_config
from torchserve_models.packing.models import ModelSource, find_model, read_yaml
from torchserve_models.packing.request import Weights
from torchserve_models.packing.sources import hub
from torchserve_models.packing.sources.model_files import git_blob_id


def test_default_models_have_starter_weights() -> None:
    assert default_models() == ["bart-large-cnn", "resnet-50", "t5-small"]
    sources = {name: find_model(name, LAYOUT) for name in known_models()}
    assert {name: source.hub for name, source in sources.items() if source} == {
        "resnet-50": "microsoft/resnet-50",
        "t5-small": "google-t5/t5-small",
        "bart-large-cnn": "facebook/bart-large-cnn",
        "resnet-152": "microsoft/resnet-152",
        "mit-b0": "nvidia/mit-b0",
        "tinyvit": "timm/tiny_vit_5m_224.dist_in22k",
    }


@pytest.mark.parametrize(
    "path", [*LAYOUT.models.glob("*/model-config.yaml"), *tasks._DEFAULTS.glob("*.yaml")]
)
def test_model_configurations_are_valid(path: Path) -> None:
    from handlers.text.config import SummarizerConfig
    from handlers.vision.types import VisionConfig

    content = read_yaml(path)
    # TorchServe ignores the register options unless each of these is written (see its ModelConfig)
    for key in ("minWorkers", "maxWorkers", "batchSize", "responseTimeout", "startupTimeout", "jobQueueSize"):
        assert isinstance(content[key], int), key
        assert content[key] > 0, key
    # An idle request waits it out: a millisecond, or a small part of what a summary takes.
    assert 1 <= content["maxBatchDelay"] <= (1 if "max_pixels" in content["handler"] else 30)
    kind = VisionConfig if "max_pixels" in content["handler"] else SummarizerConfig
    kind.from_mapping(content["handler"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("task: image-classification\nhub: a/b\n", "'license'"),
        (
            "task: painting\nhub: a/b\nlicense: mit\n",
            "unknown task 'painting'; allowed: image-classification",
        ),
        ("task: summarization\nhub: a/b\nlicense: mit\nhubb: x\n", "unknown key 'hubb'; allowed: task, hub"),
        ("task: summarization\nhub: 3\nlicense: mit\n", "'hub'"),
        ("task: summarization\nhub: a/b\nlicense: mit\npickled: 3\n", "'pickled' must be true or false"),
        ("- task\n", "mapping"),
        ("task: [\n", "cannot be read"),
        ("", "mapping"),
    ],
)
def test_invalid_source_file_is_rejected(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "source.yaml"
    path.write_text(content)
    with pytest.raises(errors.InvalidSource, match=words):
        ModelSource.read(path)


@pytest.mark.parametrize("content", ["handler: 3\n", "handler:\n  engine: 3\n", "- x\n", "a: [\n"])
def test_invalid_model_configuration_is_rejected(bench: Bench, content: str) -> None:
    (bench.layout.models / "small-net" / "model-config.yaml").write_text(content)
    with pytest.raises(errors.InvalidSource, match=r"model-config\.yaml"):
        bench.pack(weights="starter")


def test_default_engine_is_auto(bench: Bench) -> None:
    (bench.layout.models / "small-net" / "model-config.yaml").write_text("batchSize: 1\n")
    config = read_model_config("small-net", tasks.IMAGE_CLASSIFICATION, bench.layout, bench.messages.append)
    assert config == (b"batchSize: 1\n", "auto", "auto", {})


def test_unknown_model_error_lists_known_models(bench: Bench) -> None:
    with pytest.raises(errors.UnknownModel, match=r"Known: small-net.*--from"):
        bench.pack("large-net")


def test_model_without_starter_is_packed_from_the_hub(bench: Bench) -> None:
    folder = bench.layout.models / "bare"
    folder.mkdir()
    (folder / "source.yaml").write_text("task: summarization\nhub: a/b\nlicense: mit\n")
    with pytest.raises(errors.InvalidSource, match="no starter"):
        bench.pack("bare", weights="starter")
    assert default_models(bench.layout) == ["small-net"]


@pytest.mark.parametrize("weights", ["auto", "pretrained"])
@pytest.mark.full
def test_model_without_starter_is_rejected_if_the_hub_is_unreachable(
    bench: Bench, fake_hub: FakeHub, offline: Callable[[], None], weights: Weights
) -> None:
    folder = bench.layout.models / "bare"
    folder.mkdir()
    (folder / "source.yaml").write_text(f"task: image-classification\nhub: {HUB_ID}\nlicense: mit\n")
    fake_hub.faults = [Fault("/api/models", 503)]
    with pytest.raises(errors.HubUnreachable) as error:
        bench.pack("bare", weights=weights)
    message = str(error.value)
    assert f"bare has no starter weights and requires {HUB_ID} from the hub" in message
    assert "503" in message
    assert "--from FOLDER" in message
    assert "--weights starter" not in message
    fake_hub.faults.clear()
    hub._unreachable_errors.clear()
    packed = bench.pack("bare", weights=weights)
    assert packed.weights == "pretrained"
    offline()
    assert bench.pack("bare", weights=weights).unchanged  # from the cache


@pytest.mark.parametrize("task", tasks.TASKS.values(), ids=lambda task: task.name)
def test_parsed_class_table_equals_transformers(task: tasks.TaskSpec) -> None:
    from transformers.models.auto import modeling_auto

    table = getattr(modeling_auto, task.mapping)
    assert tasks._classes(task.mapping) == {
        kind: (names,) if isinstance(names, str) else tuple(names) for kind, names in table.items()
    }


@pytest.mark.parametrize("name", default_models())
@pytest.mark.full
def test_starter_weights_can_be_packed(name: str, tmp_path: Path) -> None:
    packed = pack(PackRequest(name, weights="starter", store=tmp_path), lambda _: None)
    assert read_provenance(packed.path).license
    assert packed.size < 15_000_000  # with the graph of an image classifier, which is as large as its weights


def test_blob_id_equals_git_hash_object(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello\n")
    assert git_blob_id(path) == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object
