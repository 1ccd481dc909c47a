"""Model folders with missing, empty, invalid or contradictory files are packed correctly or rejected."""

import json
import random
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from handlers.core.errors import ConfigurationError
from handlers.image_classifier import ImageClassifier
from handlers.summarizer import Summarizer
from handlers.text.model_defaults import read_defaults
from handlers.text.tokenizer import ModelTokenizer
from handlers.vision.labels import read_labels
from handlers.vision.plan_derivation import load_processor, run_processor
from handlers.vision.preprocess import Preprocessor
from tests.unit.handlers.context import FakeContext
from torchserve_models.packing import errors
from torchserve_models.packing.engines.classifier import prepare_classifier
from torchserve_models.packing.engines.summarizer_checks import check_summarizer
from torchserve_models.packing.sources.folder import collect, inspect
from torchserve_models.packing.tasks import IMAGE_CLASSIFICATION, TaskSpec

FOLDERS = 40
"""Number of random changes per kind of model; the seed is fixed."""
CONTENTS = [b"", b"{", b"[]", b"null", b"3", b"\xff\xfe", b"{}", b'"text"', b'{"a":' + b"[" * 2000]
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 3, 10**9, 1.5, float("nan"), "", "x", "0", "\ud800", [], [1], ["a"], [None], {},
    {"a": 1}, {"0": "a"}, [[1, 2], [3]],
]  # fmt: skip
KEYS: Mapping[str, list[str]] = {
    "config.json": [
        "architectures", "auto_map", "dtype", "eos_token_id", "id2label", "label2id", "label_names", "model_type",
        "num_channels", "num_labels", "pad_token_id", "prefix", "pretrained_cfg", "problem_type",
        "quantization_config", "return_dict",
        "task_specific_params", "tie_word_embeddings", "torch_dtype", "vocab_size",
    ],
    "generation_config.json": [
        "bad_words_ids", "decoder_start_token_id", "early_stopping", "eos_token_id", "forced_bos_token_id",
        "length_penalty", "max_length", "min_length", "no_repeat_ngram_size", "num_beams", "suppress_tokens",
    ],
    "preprocessor_config.json": [
        "auto_map", "crop_pct", "crop_size", "do_center_crop", "do_normalize", "do_resize", "feature_extractor_type",
        "image_mean", "image_processor_type", "image_std", "resample", "rescale_factor", "size",
    ],
    "tokenizer_config.json": [
        "added_tokens_decoder", "additional_special_tokens", "chat_template", "extra_special_tokens",
        "model_max_length", "pad_token", "tokenizer_class",
    ],
}  # fmt: skip


def key_paths(content: Any, outer: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the keys of a JSON object and of its nested objects."""
    if isinstance(content, dict) and len(outer) < 3:
        for key, value in content.items():
            yield (*outer, key)
            yield from key_paths(value, (*outer, key))


def spoil(folder: Path, random_: random.Random) -> str:
    """Change one file at random and return a description of the change."""
    path = random_.choice(sorted(folder.glob("*.json")))
    if random_.random() < 0.05:
        path.unlink()
        return f"no {path.name}"
    if random_.random() < 0.1:
        content = random_.choice(CONTENTS)
        path.write_bytes(content)
        return f"{path.name} is {content[:20]!r}"
    settings = json.loads(path.read_text())
    known = [(key,) for key in KEYS.get(path.name, [])]
    *outer, key = random_.choice(known if known and random_.random() < 0.6 else list(key_paths(settings)))
    inner = settings
    for name in outer:
        inner = inner[name]
    value = random_.choice([*VALUES, "missing"])
    if value == "missing":
        inner.pop(key, None)
    else:
        inner[key] = value
    path.write_text(json.dumps(settings))
    return f"{path.name}: {'.'.join((*outer, key))} is {value!r}"


def prepared(folder: Path, stage: Path) -> tuple[Path, TaskSpec]:
    """Collect and prepare the files of a folder in this process, and return the model/ folder of the archive."""
    task, _ = inspect(folder, "the folder")
    files = collect(folder, task, "the folder")
    model = stage / "model"
    model.mkdir(parents=True)
    for file in files:
        (model / file.name).symlink_to(file.path)
    if task == IMAGE_CLASSIFICATION:
        prepare_classifier(model, model / "prepared", "torch")
    else:
        check_summarizer(model, {})
    return model, task


@pytest.mark.parametrize("kind", ["resnet_folder", "t5_folder"])
def test_randomly_changed_folder_is_loadable_or_rejected(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A folder that passes the checks can be loaded by a worker; any other raises a PackingError with a reason."""
    original, random_ = request.getfixturevalue(kind), random.Random(16)
    packed = 0
    messages = []
    for number in range(FOLDERS):
        folder = shutil.copytree(original, tmp_path / f"{number}")
        change = spoil(folder, random_)
        try:
            model, task = prepared(folder, tmp_path / f"stage-{number}")
        except (errors.InvalidSource, ConfigurationError) as error:
            messages.append(str(error))
            continue
        except Exception as error:
            raise AssertionError(f"{change}: {error!r}") from error
        packed += 1
        try:
            if task == IMAGE_CLASSIFICATION:
                assert read_labels(model)
                Preprocessor(model)
            else:
                ModelTokenizer(model, read_defaults(model)).encode("rain " * 100, truncate=True)
        except Exception as error:
            raise AssertionError(f"a worker fails where {change}: {error!r}") from error
    assert FOLDERS // 6 < packed < FOLDERS
    assert all(len(message.split()) > 4 for message in messages)


def answer_of(model: Path) -> list[Any]:
    """Return the labels that a worker predicts for an image of one color."""
    worker = ImageClassifier()
    worker.initialize(FakeContext(model.parent, {"handler": {"engine": "torch", "precision": "fp32"}}))
    return worker.predict([worker.decode(np.full((64, 64, 3), 99, np.uint8), {})])


def edit(folder: Path, name: str = "config.json", **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def folder(resnet_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(resnet_folder, tmp_path / "net"))


def test_classifier_with_return_dict_false_is_served(
    folder: Path, resnet_folder: Path, tmp_path: Path
) -> None:
    edit(folder, return_dict=False)
    model, _ = prepared(folder, tmp_path / "tuples")
    plain, _ = prepared(resnet_folder, tmp_path / "plain")
    assert answer_of(model) == answer_of(plain)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_channels": 1}, "'num_channels' is 1, but must be 3"),
        ({"num_channels": 4}, "'num_channels' is 4, but must be 3"),
        (
            {"id2label": {"0": "a", "1": None, "2": "c"}},
            "'id2label' has None for index 1; each label must be a text that is not empty",
        ),
        ({"id2label": {"0": "a", "1": " ", "2": "c"}}, "'id2label' has ' ' for index 1"),
        ({"id2label": {"0": "a", "1": "\ud800", "2": "c"}}, "for index 1"),
        ({"id2label": {"0": ["n01", "a"], "1": "b", "2": "c"}}, r"has \['n01', 'a'\] for index 0"),
        ({"id2label": {"a": 0, "b": 1, "c": 2}}, "must map indices"),
        ({"id2label": {"1": "a", "2": "b", "3": "c"}}, "no label for index 0"),
        ({"id2label": {"0": "a", "1": "b"}}, "do not match"),
        ({"num_labels": 10**9}, "value 1000000000 for 'num_labels'"),
    ],
)
def test_unservable_classifier_is_rejected(
    folder: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    edit(folder, **changes)
    with pytest.raises((errors.InvalidSource, ConfigurationError), match=words):
        prepared(folder, tmp_path / "stage")


def test_numeric_repeated_and_unicode_labels_are_kept(folder: Path, tmp_path: Path) -> None:
    edit(folder, id2label={"0": 7, "1": "Größe 🦊", "2": "Größe 🦊"})
    model, _ = prepared(folder, tmp_path / "stage")
    assert sorted(label.label for label in answer_of(model)[0]) == ["7", "Größe 🦊", "Größe 🦊"]


@pytest.mark.parametrize("size", [10**9, 0, -224, {"shortest_edge": 10**9}, {"height": 0, "width": 32}])
def test_invalid_image_size_is_rejected(folder: Path, tmp_path: Path, size: Any) -> None:
    edit(folder, "preprocessor_config.json", size=size)
    with pytest.raises(ConfigurationError, match="'size' must be an integer from 1 to 4096 pixels"):
        prepared(folder, tmp_path / "stage")


VIT = {
    "image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4], "resample": 2, "do_resize": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"size": {"shortest_edge": 32}},
            "images of different sizes, such as 32 x 32 and 32 x 43.*'do_center_crop'",
        ),
        ({"do_resize": False}, "images of different sizes, such as 224 x 224 and 224 x 301"),
        ({"image_std": [0, 0, 0]}, "not finite; set 'image_std' to values other than 0"),
        ({"resample": 9}, "'resample' must be a Pillow filter, 0 to ., not 9"),
        (
            {"size": {"height": 32.5, "width": 32}},
            "'size' must be an integer from 1 to 4096 pixels, not 32.5",
        ),
        (
            {"image_processor_type": "My", "auto_map": {"AutoImageProcessor": "my.My"}},
            "code of the model's repository .'auto_map'.",
        ),
    ],
)
def test_unservable_image_processor_is_rejected(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(VIT | changes))
    with pytest.raises(ConfigurationError, match=reason):
        Preprocessor(tmp_path)


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"size": 32}, (32, 32)),
        ({"size": {"width": 48, "height": 32}}, (32, 48)),
        ({"image_mean": [0.5], "image_std": 0.5}, (32, 32)),
        ({"image_processor_type": "ViTImageProcessorFast"}, (32, 32)),
        ({"do_rescale": False, "do_normalize": False}, (32, 32)),
        ({"rescale_factor": 1 / 127.5}, (32, 32)),
        ({"resample": "bicubic"}, (32, 32)),
        ({"resample": 0}, (32, 32)),
    ],
)
def test_preprocessing_matches_the_image_processor(
    tmp_path: Path, changes: dict[str, Any], size: tuple[int, int]
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(VIT | changes))
    preprocessor = Preprocessor(tmp_path)
    assert (preprocessor.spec.height, preprocessor.spec.width) == size
    image = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)
    expected = run_processor(load_processor(tmp_path), image)
    if preprocessor.spec.normalization is None:
        assert torch.equal(preprocessor(image), expected)
    else:
        scale, mean, std = preprocessor.spec.normalization
        preprocessed = (preprocessor(image) * scale - torch.tensor(mean)) / torch.tensor(std)
        assert (
            (preprocessed.permute(2, 0, 1) - expected).abs() * torch.tensor(std)[:, None, None] / scale
        ).max() <= 2.01


@pytest.fixture
def bytes_folder(tmp_path: Path) -> Path:
    """A tiny ByT5, whose tokenizer has no vocabulary because its tokens are bytes."""
    from transformers import ByT5Tokenizer, T5Config, T5ForConditionalGeneration

    folder = tmp_path / "byt5"
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=384, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    ByT5Tokenizer().save_pretrained(folder)
    return folder


def test_byt5_is_packed_and_generates(bytes_folder: Path, tmp_path: Path) -> None:
    assert not {"tokenizer.json", "spiece.model"} & {path.name for path in bytes_folder.iterdir()}
    model, _ = prepared(bytes_folder, tmp_path / "stage")
    worker = Summarizer()
    worker.initialize(FakeContext(model.parent, {"handler": {"engine": "torch", "precision": "fp32"}}))
    item = worker.decode("Rain fell. </s>", {"max_new_tokens": 4})
    assert item.input_ids == (*(byte + 3 for byte in b"Rain fell. </s>"), 1)
    assert worker.predict([item])[0].token_ids


def test_summarizer_without_vocabulary_is_rejected(bytes_folder: Path, tmp_path: Path) -> None:
    edit(bytes_folder, "tokenizer_config.json", tokenizer_class="T5Tokenizer")
    with pytest.raises(
        errors.InvalidSource, match="is missing the preprocessor or tokenizer files for summarization"
    ):
        prepared(bytes_folder, tmp_path / "stage")


@pytest.mark.parametrize("length", ["512", -1, True, [512]])
def test_invalid_tokenizer_length_is_rejected(t5_folder: Path, tmp_path: Path, length: Any) -> None:
    folder = Path(shutil.copytree(t5_folder, tmp_path / "t5"))
    edit(folder, "tokenizer_config.json", model_max_length=length)
    with pytest.raises(ConfigurationError, match="tokenizer"):
        prepared(folder, tmp_path / "stage")
