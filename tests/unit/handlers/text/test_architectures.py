"""Every text architecture of `AutoModelForSeq2SeqLM` is served as documented, up to its limits."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, DynamicCache, EncoderDecoderCache
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

from handlers.core.errors import ConfigurationError, InvalidParameter
from handlers.core.parameters import parse_parameters
from handlers.summarizer import Summarizer
from handlers.text.architectures import REFUSED, SERVED, check_served
from handlers.text.model_defaults import read_defaults
from handlers.text.types import Summary, TextItem
from tests.unit.handlers.context import FakeContext
from tests.unit.handlers.text.tiny import SENTENCES
from tests.unit.handlers.text.tiny_architectures import DEEPER, WRITERS, change_json

pytestmark = pytest.mark.full

TEXTS = ("Rain.", SENTENCES[0], " ".join(SENTENCES) * 6)
"""The shortest first, as the warm-up's text is short; the longest is cut to what each model reads."""
MAX_NEW_TOKENS = 70
MAX_INPUT_TOKENS = 130
"""Asked for where positions are relative."""


@pytest.fixture(scope="module", params=WRITERS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder: Path = WRITERS[request.param](tmp_path_factory.mktemp("archive") / "model")
    return request.param, folder


def summarizer(folder: Path, **settings: Any) -> Summarizer:
    settings = {"precision": "fp32", "threads": 1, "max_new_tokens": MAX_NEW_TOKENS} | settings
    handler = Summarizer()
    handler.initialize(FakeContext(folder.parent, {"handler": settings}))
    return handler


def served(handler: Summarizer, texts: Sequence[str], **parameters: Any) -> list[Summary]:
    """Summaries of texts that come in one batch, as a request with these parameters gets them."""
    checked = parse_parameters(parameters, tuple(handler.parameters()))
    items: list[TextItem] = [handler.decode(text, checked) for text in texts]
    summaries: dict[int, Summary] = {}
    for indices in handler.batches(items):
        answers = handler.predict([items[index] for index in indices])
        summaries.update(zip(indices, answers, strict=True))
    return [summaries[index] for index in range(len(texts))]


def documented(name: str, folder: Path, text: str, max_tokens: int, beams: int) -> tuple[int, ...]:
    """New tokens of a fresh model, used as the documentation of its architecture has it."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    network: Any = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)
    inputs = tokenizer(text, truncation=True, max_length=max_tokens, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    if name == "led":
        inputs["global_attention_mask"] = torch.zeros_like(inputs["input_ids"])
        inputs["global_attention_mask"][:, 0] = 1
    if name.endswith(DEEPER):
        inputs["past_key_values"] = EncoderDecoderCache(DynamicCache(), DynamicCache())
    with torch.inference_mode():
        row: list[int] = network.generate(**inputs, max_new_tokens=10, num_beams=beams)[0].tolist()[1:]
    end = network.generation_config.eos_token_id
    return tuple(row[: row.index(end) + 1] if end in row else row)


def test_a_batch_is_answered_as_the_library_answers_each_text(model: tuple[str, Path]) -> None:
    name, folder = model
    handler = summarizer(folder, engine="torch")
    max_tokens = handler.describe()["max_input_tokens"]
    for beams in (1, 3):
        expected = [documented(name, folder, text, max_tokens, beams) for text in TEXTS]
        assert len(set(expected)) > 1, "the model answers the same whatever it reads"
        summaries = served(handler, TEXTS, max_new_tokens=10, num_beams=beams)
        assert [summary.token_ids for summary in summaries] == expected
    assert served(handler, TEXTS[-1:], max_new_tokens=10, num_beams=beams) == summaries[-1:]


def test_the_longest_input_and_output(model: tuple[str, Path]) -> None:
    name, folder = model
    limits = read_defaults(folder)
    handler = summarizer(folder, max_input_tokens=limits.encoder_positions or MAX_INPUT_TOKENS)
    native = name.partition(",")[0] in ("t5", "mt5", "bart")
    assert handler.describe()["engine"] == ("native" if native else "torch")
    longest = min(limits.decoder_positions or MAX_NEW_TOKENS, MAX_NEW_TOKENS)
    for beams in (1, 2):
        lengths = {"max_new_tokens": longest, "min_new_tokens": longest}
        [summary] = served(handler, TEXTS[2:], **lengths, num_beams=beams)
        assert summary.truncated
        assert len(summary.token_ids) == longest
    with pytest.raises(InvalidParameter, match=f"to {longest}, not {longest + 1}"):
        served(handler, TEXTS[:1], max_new_tokens=longest + 1)


def test_an_input_limit_above_the_positions_is_refused(model: tuple[str, Path]) -> None:
    _, folder = model
    positions = read_defaults(folder).encoder_positions
    if positions is None:
        assert summarizer(folder, max_input_tokens=5000).describe()["max_input_tokens"] == 5000
        return
    with pytest.raises(ConfigurationError, match=f"'handler.max_input_tokens' is {positions + 1}"):
        summarizer(folder, max_input_tokens=positions + 1)


def test_generation_settings_in_config_json_count(tmp_path: Path) -> None:
    """As older models have them, which is where those of an `encoder-decoder` mostly stand."""
    folder = WRITERS["encoder-decoder"](tmp_path / "model")
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").unlink()
    change_json(folder / "config.json", **generation)
    handler = summarizer(folder)
    expected = documented("encoder-decoder", folder, TEXTS[1], handler.describe()["max_input_tokens"], 1)
    assert served(handler, TEXTS[1:2], max_new_tokens=10)[0].token_ids == expected


def test_each_model_type_of_the_auto_class_is_served_or_refused() -> None:
    assert set(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES) == SERVED | REFUSED.keys()
    assert not SERVED & REFUSED.keys()
    assert {name.partition(",")[0] for name in WRITERS} == SERVED


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "qwen2_audio"}, "'qwen2_audio' is not served: it reads audio"),
        ({"model_type": "seamless_m4t"}, "needs a target language"),
        ({"model_type": "whisper"}, "never compared with the library's; served are bart, "),
        ({}, "model type None is not served"),
        ({"model_type": "encoder-decoder"}, "encoder of model type None"),
        (
            {"model_type": "encoder-decoder", "encoder": {"model_type": "longformer"}},
            "encoder of model type 'longformer' is not served; served are bert, ",
        ),
        (
            {"model_type": "encoder-decoder", "encoder": {"model_type": "bert"}, "decoder": {}},
            "decoder of model type None",
        ),
    ],
)
def test_what_is_refused_is_refused_with_the_reason(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        check_served(config)


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
def test_a_start_of_decoding_that_is_not_said(
    name: str, settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    folder = WRITERS[name](tmp_path / "model")
    change_json(folder / "generation_config.json", **settings)
    with pytest.raises(ConfigurationError, match=words):
        summarizer(folder)
