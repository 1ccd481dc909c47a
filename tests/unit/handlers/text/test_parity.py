"""Equality of a batch's tokens in fp32 with those of transformers' `generate()` for single texts."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from handlers.core import device
from handlers.core.device import AMX, FAST_BF16, FAST_INT8, cpu_flags, has_any
from handlers.core.parameters import parse_parameters
from handlers.engines.base import PREPARED_DIR
from handlers.engines.seq2seq import step_kernels
from handlers.engines.seq2seq.step_kernels import LEVELS
from handlers.summarizer import Summarizer
from handlers.text.types import Summary, TextItem
from tests.conftest import ROOT
from tests.unit.handlers.context import FakeContext
from tests.unit.handlers.text.reference import Reference
from tests.unit.handlers.text.tiny import SENTENCES, TEXTS, write_bart, write_pegasus, write_t5
from tests.unit.handlers.text.tiny_architectures import WRITERS, change_json
from training.reports import HELD_OUT_SEED, draw_example

TASK = {"prefix": "summarize: ", "max_length": 16, "min_length": 4, "num_beams": 3, "early_stopping": True}
BEAMS = {"num_beams": 4, "length_penalty": 2.0, "no_repeat_ngram_size": 3, "early_stopping": True}
CHOICES: list[dict[str, Any]] = [
    {},
    {"num_beams": 1, "min_length": 0},
    {"num_beams": 4, "early_stopping": False, "max_new_tokens": 20},
    {"num_beams": 2, "early_stopping": "never", "length_penalty": 0.5, "min_new_tokens": 8},
    {"num_beams": 1, "max_length": 40, "min_length": 12, "no_repeat_ngram_size": 2},
    {"num_beams": 5, "length_penalty": -1.0, "max_new_tokens": 12},
]

NEEDS_BF16 = pytest.mark.skipif(not has_any(FAST_BF16), reason="this CPU has no bf16")
NEEDS_INT8 = pytest.mark.skipif(not has_any(FAST_INT8), reason="this CPU has no fast int8")


_REFERENCES: dict[tuple[bytes | int, ...], Reference] = {}


def reference_of(model: Path, max_input_tokens: int) -> Reference:
    """Return the reference of a model, shared by the tests of a model with the same files."""
    files = sorted(path for path in model.iterdir() if path.is_file())
    digest = hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).digest()
    key = (digest, max_input_tokens)
    if key not in _REFERENCES:
        _REFERENCES[key] = Reference(model, max_input_tokens)
    return _REFERENCES[key]


class Pair:
    """A handler, and transformers with the same model files."""

    def __init__(self, folder: Path, **handler: Any) -> None:
        self.handler = Summarizer()
        self.handler.initialize(
            FakeContext(folder, {"handler": {"precision": "fp32", "threads": 1} | handler})
        )
        max_input_tokens = self.handler.describe()["max_input_tokens"]
        self.reference = reference_of(folder / "model", max_input_tokens)

    def summarize(self, items: Sequence[TextItem]) -> list[Summary]:
        """Summarize in the batches that the handler forms, as the pipeline does."""
        summaries: dict[int, Summary] = {}
        for indices in self.handler.batches(items):
            answers = self.handler.predict([items[index] for index in indices])
            summaries.update(zip(indices, answers, strict=True))
        return [summaries[index] for index in range(len(items))]

    def check(self, texts: Sequence[str], parameters: Sequence[Mapping[str, Any]]) -> None:
        """Compare a batch of all texts, each with its parameters, with `generate()` of each text."""
        allowed = self.handler.parameters()
        items = [
            self.handler.decode(text, parse_parameters(values, allowed))
            for text, values in zip(texts, parameters, strict=True)
        ]
        summaries = self.summarize(items)
        expected = [
            self.reference.tokens(text, values) for text, values in zip(texts, parameters, strict=True)
        ]
        assert [summary.token_ids for summary in summaries] == expected
        assert [summary.text for summary in summaries] == [self.reference.text(ids) for ids in expected]


TINY = {"t5": write_t5, "bart": write_bart, "pegasus": write_pegasus}


@pytest.fixture(
    scope="module",
    params=[(name, engine) for name in TINY for engine in ("native", "native, compiled", "torch")],
    ids=str,
)
def tiny(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    name, engine = request.param
    folder = tmp_path_factory.mktemp("tiny")
    TINY[name](folder / "model", TASK)
    engine, _, is_compiled = engine.partition(", ")
    if is_compiled:
        (folder / "model" / PREPARED_DIR).symlink_to(request.getfixturevalue("compiled_step"))
    pair = Pair(folder, engine=engine)
    description = pair.handler.describe()
    assert description["engine"] == engine
    assert description.get("step_linear", "torch") == ("compiled" if is_compiled else "torch")
    return pair


@pytest.fixture(params=["torch", *LEVELS])
def prepared_files(
    request: Any, compiled_step: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return the files of an archive without the compiled decoding step, or with it for a level of x86-64."""
    if request.param == "torch":
        empty = tmp_path / "empty"
        empty.mkdir()
        return empty
    if not LEVELS[request.param] <= cpu_flags():
        pytest.skip(f"this CPU does not support {request.param}")
    monkeypatch.setattr(step_kernels, "cpu_flags", lambda: LEVELS[request.param])
    return compiled_step


@pytest.mark.parametrize("parameters", CHOICES, ids=range(len(CHOICES)))
@pytest.mark.filterwarnings("ignore:Unfeasible length constraints")
@pytest.mark.full
def test_tokens_of_batch_equal_generate(tiny: Pair, parameters: dict[str, Any]) -> None:
    tiny.check(TEXTS, [parameters] * len(TEXTS))


@pytest.mark.filterwarnings("ignore:Unfeasible length constraints")
@pytest.mark.full
def test_tokens_with_mixed_parameters_equal_generate(tiny: Pair) -> None:
    texts = [text for text in TEXTS for _ in CHOICES]
    tiny.check(texts, CHOICES * len(TEXTS))


@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
@pytest.mark.full
def test_tokens_with_random_parameters_equal_generate(tiny: Pair, data: st.DataObject) -> None:
    longest = data.draw(st.integers(1, 20))
    parameters = st.fixed_dictionaries(
        {"max_new_tokens": st.just(longest)},
        optional={
            "min_new_tokens": st.integers(0, longest),
            "num_beams": st.integers(1, 5),
            "length_penalty": st.floats(-2, 5),
            "no_repeat_ngram_size": st.integers(0, 4),
            "early_stopping": st.sampled_from([True, False, "never"]),
        },
    )
    one = data.draw(parameters)
    # transformers warns if the model's minimum is above the maximum.
    one.setdefault("min_new_tokens", 0)
    texts = data.draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4))
    tiny.check(texts, [one] * len(texts))


def test_model_that_ends_at_once_respects_the_minimum(tmp_path: Path) -> None:
    weights = load_file(write_bart(tmp_path / "model", TASK) / "model.safetensors")
    weights["final_logits_bias"][0, 2] = 100
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    pair = Pair(tmp_path)
    choices: list[dict[str, Any]] = [
        lengths | {"num_beams": beams}
        for lengths in (
            {},
            {"min_length": 0},
            {"min_length": 7},
            {"min_new_tokens": 7},
            {"min_new_tokens": 1},
        )
        for beams in (1, 3)
    ]
    pair.check([TEXTS[0]] * len(choices), choices)
    items = [pair.handler.decode(TEXTS[0], {"min_new_tokens": count, "num_beams": 1}) for count in (0, 7)]
    assert [len(summary.token_ids) for summary in pair.summarize(items)] == [1, 8]


def test_tokens_do_not_depend_on_batch_size(tmp_path: Path) -> None:
    write_t5(tmp_path / "model", TASK)
    Pair(tmp_path, max_batch_tokens=1).check(TEXTS, [{}] * len(TEXTS))


def test_tokens_of_another_architecture_equal_generate(tmp_path: Path) -> None:
    folder = WRITERS["longt5"](tmp_path / "model")
    change_json(folder / "config.json", task_specific_params={"summarization": TASK})
    pair = Pair(tmp_path)
    described = pair.handler.describe()
    assert (described["engine"], described["architecture"]) == ("torch", "LongT5ForConditionalGeneration")
    assert described["reason"].endswith("plbart and t5, not longt5")
    for parameters in ({}, {"num_beams": 1, "max_length": 20, "min_length": 0}):
        pair.check(TEXTS, [parameters] * len(TEXTS))


def test_sentencepiece_file_is_a_complete_tokenizer(tmp_path: Path) -> None:
    """Older repositories, such as those of mT5, have no tokenizer.json."""
    write_t5(tmp_path / "model", TASK)
    (tmp_path / "model" / "tokenizer.json").unlink()
    file = BytesIO()
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=file, vocab_size=90, minloglevel=2, **ids
    )
    (tmp_path / "model" / "spiece.model").write_bytes(file.getvalue())
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "model_max_length": 64}
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(settings))
    pair = Pair(tmp_path)
    assert pair.handler.decode(TEXTS[0], {}).input_ids[-1] == 1
    pair.check(TEXTS, [{}] * len(TEXTS))


@pytest.mark.parametrize("name", ["t5-small", "bart-large-cnn"])
@pytest.mark.parametrize(
    "parameters", [{"num_beams": 1}, BEAMS, {}], ids=["greedy", "beams", "model defaults"]
)
def test_tokens_of_starter_models_equal_generate(
    name: str, parameters: dict[str, Any], prepared_files: Path, tmp_path: Path
) -> None:
    _link_starter(name, tmp_path / "model")
    (tmp_path / "model" / PREPARED_DIR).symlink_to(prepared_files)
    texts = [*TEXTS, *(draw_example(HELD_OUT_SEED, index)[0] for index in range(3))]
    Pair(tmp_path).check(texts, [parameters] * len(texts))


@pytest.fixture(scope="module")
def full_width_t5_small(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a T5 with t5-small's widths and vocabulary, two of its six layers, and random weights."""
    folder = tmp_path_factory.mktemp("t5-small")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(shared_data / "tokenizers" / "t5" / "tokenizer.json"),
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=512,
    )
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=32128,
        d_model=512,
        d_kv=64,
        d_ff=2048,
        num_layers=2,
        num_heads=8,
        decoder_start_token_id=0,
        task_specific_params={"summarization": BEAMS | {"max_length": 200, "prefix": "summarize: "}},
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.full
def test_tokens_of_full_width_t5_small_equal_generate(
    full_width_t5_small: Path, prepared_files: Path, tmp_path: Path
) -> None:
    _link_files(full_width_t5_small, tmp_path / "model")
    (tmp_path / "model" / PREPARED_DIR).symlink_to(prepared_files)
    pair = Pair(tmp_path)
    texts = [SENTENCES[0], " ".join(SENTENCES), " ".join(SENTENCES * 4)]
    for parameters in (
        {"max_new_tokens": 8, "num_beams": 1, "no_repeat_ngram_size": 0},
        {"max_new_tokens": 8},
    ):
        pair.check(texts, [parameters] * len(texts))


@pytest.fixture(scope="module")
def known_fp32_summaries() -> dict[tuple[str, str], list[str]]:
    """The summaries in fp32 that earlier tests computed, by model and attention."""
    return {}


@pytest.mark.parametrize("name", ["t5-small", "bart-large-cnn"])
@pytest.mark.parametrize(
    ("lower", "attention"),
    [
        pytest.param("bf16", "torch", marks=NEEDS_BF16),
        pytest.param("bf16", "compiled", marks=NEEDS_BF16),
        pytest.param("int8", "compiled", marks=NEEDS_INT8),
        ("int8 without instructions", "compiled"),
    ],
)
@pytest.mark.full
def test_summaries_in_lower_precision_are_close_to_fp32(
    name: str,
    lower: str,
    attention: str,
    known_fp32_summaries: dict[tuple[str, str], list[str]],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lower, _, is_limited = lower.partition(" without ")
    if is_limited:
        flags = LEVELS["x86-64-v3"] & cpu_flags()
        for module in (device, step_kernels):
            monkeypatch.setattr(module, "cpu_flags", lambda: flags)
    texts = [draw_example(HELD_OUT_SEED, index)[0] for index in range(24)]
    summaries: list[list[str]] = []
    for precision in ("fp32", lower):
        if precision == "fp32" and (name, attention) in known_fp32_summaries:
            summaries.append(known_fp32_summaries[name, attention])
            continue
        model = _link_starter(name, tmp_path / precision / "model")
        if attention == "compiled":
            (model / PREPARED_DIR).symlink_to(request.getfixturevalue("compiled_step"))
        pair = Pair(model.parent, precision=precision)
        description = pair.handler._device.describe() | pair.handler.describe()
        assert description["precision"] == precision
        assert description["attention"] == attention
        if attention == "compiled" and not has_any(AMX):
            assert description["step_linear"] == description["decoder_layers"] == "compiled"
        summaries.append([])
        for parameters in ({"num_beams": 1}, {}):
            items = [pair.handler.decode(text, dict(parameters)) for text in texts]
            summaries[-1] += [summary.text for summary in pair.summarize(items)]
        if precision == "fp32":
            known_fp32_summaries[name, attention] = summaries[0]
    from rouge_score.rouge_scorer import RougeScorer  # its import takes seconds

    scorer = RougeScorer(["rougeL"])
    scores = [scorer.score(*couple)["rougeL"].fmeasure for couple in zip(*summaries, strict=True)]
    for greedy_or_default in (scores[: len(texts)], scores[len(texts) :]):
        assert sum(greedy_or_default) / len(texts) >= 0.98


def _link_starter(name: str, model: Path) -> Path:
    """Create the folder `model` with links to the files of a starter model."""
    return _link_files(ROOT / "models" / name / "starter", model)


def _link_files(source: Path, model: Path) -> Path:
    model.mkdir(parents=True)
    for path in source.iterdir():
        (model / path.name).symlink_to(path)
    return model
