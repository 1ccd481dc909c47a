"""The text architectures of `AutoModelForSeq2SeqLM`: equality with `generate()`, limits and rejected types."""

import json
from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, DynamicCache, EncoderDecoderCache
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

from handlers.core.errors import ConfigurationError, InvalidParameter
from handlers.core.parameters import parse_parameters
from handlers.engines.seq2seq.native_seq2seq import NETWORKS
from handlers.summarizer import Summarizer
from handlers.text.architectures import REJECTED_MODEL_TYPES, SUPPORTED_MODEL_TYPES, check_architecture
from handlers.text.model_defaults import read_defaults
from handlers.text.types import Summary, TextItem
from tests.unit.handlers.context import FakeContext
from tests.unit.handlers.text.tiny import SENTENCES
from tests.unit.handlers.text.tiny_architectures import DEEPER, WRITERS, change_json

pytestmark = pytest.mark.full

TEXTS = ("Rain.", SENTENCES[0], " ".join(SENTENCES) * 6)
"""Texts by length: a short one like the warm-up's, and a long one that every model truncates."""
NEW_TOKENS = 7
"""The number of new tokens that are compared with those of `generate()`."""
MAX_NEW_TOKENS = 70
MAX_INPUT_TOKENS = 130
"""The input limit of models with relative positions."""


@pytest.fixture(scope="module", params=WRITERS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder: Path = WRITERS[request.param](tmp_path_factory.mktemp("archive") / "model")
    return request.param, folder


def summarizer(folder: Path, **settings: Any) -> Summarizer:
    settings = {"precision": "fp32", "threads": 1, "max_new_tokens": MAX_NEW_TOKENS} | settings
    handler = Summarizer()
    handler.initialize(FakeContext(folder.parent, {"handler": settings}))
    return handler


def summarize(handler: Summarizer, texts: Sequence[str], **parameters: Any) -> list[Summary]:
    """Return the summaries of texts that arrive in one batch with the same parameters."""
    checked = parse_parameters(parameters, tuple(handler.parameters()))
    items: list[TextItem] = [handler.decode(text, checked) for text in texts]
    summaries: dict[int, Summary] = {}
    for indices in handler.batches(items):
        answers = handler.predict([items[index] for index in indices])
        summaries.update(zip(indices, answers, strict=True))
    return [summaries[index] for index in range(len(texts))]


@lru_cache(maxsize=1)
def load(folder: Path) -> tuple[Any, Any]:
    """Return tokenizer and network."""
    network = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)
    return AutoTokenizer.from_pretrained(folder), network


def generate_as_documented(
    name: str, folder: Path, text: str, max_tokens: int, beams: int
) -> tuple[int, ...]:
    """Return the new tokens of a newly loaded model, used as its documentation recommends."""
    tokenizer, loaded = load(folder)
    network = deepcopy(loaded)  # BigBird-Pegasus, for example, attends differently after a short text
    inputs = tokenizer(text, truncation=True, max_length=max_tokens, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    if name == "led":
        inputs["global_attention_mask"] = torch.zeros_like(inputs["input_ids"])
        inputs["global_attention_mask"][:, 0] = 1
    if name.endswith(DEEPER):
        inputs["past_key_values"] = EncoderDecoderCache(DynamicCache(), DynamicCache())
    with torch.inference_mode():
        row: list[int] = network.generate(**inputs, max_new_tokens=NEW_TOKENS, num_beams=beams)[0].tolist()[
            1:
        ]
    end = network.generation_config.eos_token_id
    return tuple(row[: row.index(end) + 1] if end in row else row)


def _is_native(name: str) -> bool:
    """Return whether `auto` selects the native engine for a model of WRITERS."""
    return name.partition(",")[0] in NETWORKS


def test_batch_equals_generate_for_each_text(model: tuple[str, Path]) -> None:
    name, folder = model
    handlers = [summarizer(folder, engine=engine) for engine in ("torch", *["native"] * _is_native(name))]
    max_tokens = handlers[0].describe()["max_input_tokens"]
    for beams in (1, 3):
        expected = [generate_as_documented(name, folder, text, max_tokens, beams) for text in TEXTS]
        assert len(set(expected)) > 1, "the model generates the same tokens for all texts"
        for handler in handlers:
            summaries = summarize(handler, TEXTS, max_new_tokens=NEW_TOKENS, num_beams=beams)
            assert [summary.token_ids for summary in summaries] == expected
            assert (
                summarize(handler, TEXTS[-1:], max_new_tokens=NEW_TOKENS, num_beams=beams) == summaries[-1:]
            )


def test_longest_input_and_output_are_served(model: tuple[str, Path]) -> None:
    name, folder = model
    limits = read_defaults(folder)
    handler = summarizer(folder, max_input_tokens=limits.encoder_positions or MAX_INPUT_TOKENS)
    assert handler.describe()["engine"] == ("native" if _is_native(name) else "torch")
    longest = min(limits.decoder_positions or MAX_NEW_TOKENS, MAX_NEW_TOKENS)
    # transformers' searches have the same limits; each of the native engine's has its own cache.
    for beams in (1, 2) if _is_native(name) else (2,):
        lengths = {"max_new_tokens": longest, "min_new_tokens": longest}
        [summary] = summarize(handler, TEXTS[2:], **lengths, num_beams=beams)
        assert summary.truncated
        assert len(summary.token_ids) == longest
    with pytest.raises(InvalidParameter, match=f"to {longest}, not {longest + 1}"):
        summarize(handler, TEXTS[:1], max_new_tokens=longest + 1)


def test_input_limit_above_the_positions_is_rejected(model: tuple[str, Path]) -> None:
    _, folder = model
    positions = read_defaults(folder).encoder_positions
    if positions is None:
        assert summarizer(folder, max_input_tokens=5000).describe()["max_input_tokens"] == 5000
        return
    with pytest.raises(ConfigurationError, match=f"'handler.max_input_tokens' is {positions + 1}"):
        summarizer(folder, max_input_tokens=positions + 1)


def test_generation_settings_in_config_json_are_respected(tmp_path: Path) -> None:
    """Older models, and most of type `encoder-decoder`, have no generation_config.json."""
    folder = WRITERS["encoder-decoder"](tmp_path / "model")
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").unlink()
    change_json(folder / "config.json", **generation)
    handler = summarizer(folder)
    expected = generate_as_documented(
        "encoder-decoder", folder, TEXTS[1], handler.describe()["max_input_tokens"], 1
    )
    assert summarize(handler, TEXTS[1:2], max_new_tokens=NEW_TOKENS)[0].token_ids == expected


def test_each_model_type_of_the_auto_class_is_supported_or_rejected() -> None:
    assert (
        set(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
        == SUPPORTED_MODEL_TYPES | REJECTED_MODEL_TYPES.keys()
    )
    assert not SUPPORTED_MODEL_TYPES & REJECTED_MODEL_TYPES.keys()
    assert {name.partition(",")[0] for name in WRITERS} == SUPPORTED_MODEL_TYPES


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "qwen2_audio"}, "'qwen2_audio' is not supported: its input is audio"),
        ({"model_type": "seamless_m4t"}, "requires a target language"),
        ({"model_type": "whisper"}, "'whisper' is not supported; supported types: bart, "),
        ({}, "model type None is not supported"),
        ({"model_type": "encoder-decoder"}, "encoder of model type None"),
        (
            {"model_type": "encoder-decoder", "encoder": {"model_type": "longformer"}},
            "encoder of model type 'longformer' is not supported; supported types: bert, ",
        ),
        (
            {"model_type": "encoder-decoder", "encoder": {"model_type": "bert"}, "decoder": {}},
            "decoder of model type None",
        ),
    ],
)
def test_rejected_model_type_has_a_reason(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        check_architecture(config)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("m2m_100", {"forced_bos_token_id": None}, "'forced_bos_token_id' is missing"),
        ("nllb-moe", {"forced_bos_token_id": None}, "'forced_bos_token_id' is missing"),
        ("mbart", {"decoder_start_token_id": 2}, "'forced_bos_token_id' is missing"),
        ("plbart", {"decoder_start_token_id": None}, "'decoder_start_token_id' is missing"),
        ("encoder-decoder", {"decoder_start_token_id": None}, "'decoder_start_token_id' is missing"),
        ("t5", {"decoder_start_token_id": None}, "'decoder_start_token_id' is missing"),
        ("bart", {"decoder_start_token_id": [2, 0]}, r"must be one token id, not \[2, 0\]"),
    ],
)
def test_missing_start_token_is_rejected(
    name: str, settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    folder = WRITERS[name](tmp_path / "model")
    change_json(folder / "generation_config.json", **settings)
    with pytest.raises(ConfigurationError, match=words):
        summarizer(folder)
