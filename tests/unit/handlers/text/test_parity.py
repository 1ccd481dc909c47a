"""In fp32 a batch's tokens equal transformers' `generate()` of each text alone, for greedy and for beam search."""

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
from rouge_score.rouge_scorer import RougeScorer
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from handlers.core.device import FAST_INT8, has_any
from handlers.core.parameters import parse_parameters
from handlers.engines.base import PREPARED
from handlers.summarizer import Summarizer
from handlers.text.types import Summary, TextItem
from tests.conftest import ROOT
from tests.unit.handlers.context import FakeContext
from tests.unit.handlers.text.reference import Reference
from tests.unit.handlers.text.tiny import SENTENCES, TEXTS, write_bart, write_pegasus, write_t5
from training.reports import HELD_OUT_SEED, report

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

NEEDS_INT8 = pytest.mark.skipif(not has_any(FAST_INT8), reason="this CPU has no fast int8")


class Pair:
    """A handler as a worker has it, and transformers on the same files."""

    def __init__(self, folder: Path, **handler: Any) -> None:
        self.handler = Summarizer()
        self.handler.initialize(
            FakeContext(folder, {"handler": {"precision": "fp32", "threads": 1} | handler})
        )
        self.reference = Reference(folder / "model", self.handler.describe()["max_input_tokens"])

    def summarize(self, items: Sequence[TextItem]) -> list[Summary]:
        """In the batches that the handler cuts, as the base handler does."""
        summaries: dict[int, Summary] = {}
        for indices in self.handler.batches(items):
            answers = self.handler.predict([items[index] for index in indices])
            summaries.update(zip(indices, answers, strict=True))
        return [summaries[index] for index in range(len(items))]

    def check(self, texts: Sequence[str], parameters: Sequence[Mapping[str, Any]]) -> None:
        """All texts as one batch, each with its own parameters, against each alone."""
        allowed = self.handler.parameters()
        items = [
            self.handler.decode(text, parse_parameters(own, allowed))
            for text, own in zip(texts, parameters, strict=True)
        ]
        summaries = self.summarize(items)
        expected = [self.reference.tokens(text, own) for text, own in zip(texts, parameters, strict=True)]
        assert [summary.token_ids for summary in summaries] == expected
        assert [summary.text for summary in summaries] == [self.reference.text(ids) for ids in expected]


TINY = {"t5": write_t5, "bart": write_bart}


@pytest.fixture(
    scope="module", params=[(name, engine) for name in TINY for engine in ("native", "torch")], ids=str
)
def tiny(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    name, engine = request.param
    folder = tmp_path_factory.mktemp("tiny")
    TINY[name](folder / "model", TASK)
    pair = Pair(folder, engine=engine)
    assert pair.handler.describe()["engine"] == engine
    return pair


@pytest.mark.parametrize("parameters", CHOICES, ids=range(len(CHOICES)))
@pytest.mark.filterwarnings("ignore:Unfeasible length constraints")
@pytest.mark.full
def test_a_batch_equals_generate(tiny: Pair, parameters: dict[str, Any]) -> None:
    tiny.check(TEXTS, [parameters] * len(TEXTS))


@pytest.mark.filterwarnings("ignore:Unfeasible length constraints")
@pytest.mark.full
def test_mixed_parameters_in_one_batch(tiny: Pair) -> None:
    texts = [text for text in TEXTS for _ in CHOICES]
    tiny.check(texts, CHOICES * len(TEXTS))


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
@pytest.mark.full
def test_any_parameters(tiny: Pair, data: st.DataObject) -> None:
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
    # The model's own minimum would draw a warning from transformers where it is above the maximum.
    one.setdefault("min_new_tokens", 0)
    texts = data.draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4))
    tiny.check(texts, [one] * len(texts))


def test_a_model_that_ends_as_soon_as_it_may(tmp_path: Path) -> None:
    weights = load_file(write_bart(tmp_path / "model", TASK) / "model.safetensors")
    weights["final_logits_bias"][0, 2] = 100
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    pair = Pair(tmp_path)
    choices: list[dict[str, Any]] = [
        own | {"num_beams": beams}
        for own in ({}, {"min_length": 0}, {"min_length": 7}, {"min_new_tokens": 7}, {"min_new_tokens": 1})
        for beams in (1, 3)
    ]
    pair.check([TEXTS[0]] * len(choices), choices)
    items = [pair.handler.decode(TEXTS[0], {"min_new_tokens": count, "num_beams": 1}) for count in (0, 7)]
    assert [len(summary.token_ids) for summary in pair.summarize(items)] == [1, 8]


def test_small_batches_answer_as_large_ones(tmp_path: Path) -> None:
    write_t5(tmp_path / "model", TASK)
    Pair(tmp_path, max_batch_tokens=1).check(TEXTS, [{}] * len(TEXTS))


def test_another_family_is_generated_by_transformers(tmp_path: Path) -> None:
    write_pegasus(tmp_path / "model", TASK)
    pair = Pair(tmp_path)
    described = pair.handler.describe()
    assert (described["engine"], described["architecture"]) == ("torch", "PegasusForConditionalGeneration")
    assert "this model is pegasus" in described["reason"]
    assert described["max_input_tokens"] == 56
    for parameters in ({}, {"num_beams": 1, "max_length": 20, "min_length": 0}):
        pair.check(TEXTS, [parameters] * len(TEXTS))


def test_a_tokenizer_that_is_sentencepieces_file_alone(tmp_path: Path) -> None:
    """As older repositories have it, such as mT5's."""
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
@pytest.mark.parametrize("parameters", [{"num_beams": 1}, BEAMS, {}], ids=["greedy", "beams", "own defaults"])
def test_starters_equal_generate(name: str, parameters: dict[str, Any], tmp_path: Path) -> None:
    starter = ROOT / "models" / name / "starter"
    (tmp_path / "model").symlink_to(starter)
    texts = [*TEXTS, *(report(HELD_OUT_SEED, index)[0] for index in range(3))]
    Pair(tmp_path).check(texts, [parameters] * len(texts))


def test_t5_small_at_its_real_size(shared_data: Path, tmp_path: Path) -> None:
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
        num_layers=6,
        num_heads=8,
        decoder_start_token_id=0,
        task_specific_params={"summarization": BEAMS | {"max_length": 200, "prefix": "summarize: "}},
    )
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    pair = Pair(tmp_path)
    texts = [SENTENCES[0], " ".join(SENTENCES), " ".join(SENTENCES * 8)]
    for parameters in (
        {"max_new_tokens": 8, "num_beams": 1, "no_repeat_ngram_size": 0},
        {"max_new_tokens": 8},
    ):
        pair.check(texts, [parameters] * len(texts))


@pytest.mark.parametrize("name", ["t5-small", "bart-large-cnn"])
@pytest.mark.parametrize("parameters", [{"num_beams": 1}, {}], ids=["greedy", "own defaults"])
@pytest.mark.parametrize(
    ("lower", "attention"),
    [("bf16", "torch"), ("bf16", "compiled"), pytest.param("int8", "compiled", marks=NEEDS_INT8)],
)
@pytest.mark.full
def test_summaries_in_less_precision_are_those_of_fp32(
    name: str,
    parameters: dict[str, Any],
    lower: str,
    attention: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    texts = [report(HELD_OUT_SEED, index)[0] for index in range(24)]
    summaries = []
    for precision in ("fp32", lower):
        model = tmp_path / precision / "model"
        model.mkdir(parents=True)
        for path in (ROOT / "models" / name / "starter").iterdir():
            (model / path.name).symlink_to(path)
        if attention == "compiled":
            (model / PREPARED).symlink_to(request.getfixturevalue("compiled"))
        pair = Pair(model.parent, precision=precision)
        described = pair.handler._device.describe() | pair.handler.describe()
        assert described["precision"] == precision
        in_bf16 = pair.handler._device.dtype == torch.bfloat16  # beside int8, too, where the CPU has it
        assert described["attention"] == (attention if in_bf16 else "torch")
        items = [pair.handler.decode(text, dict(parameters)) for text in texts]
        summaries.append([summary.text for summary in pair.summarize(items)])
    scorer = RougeScorer(["rougeL"])
    scores = [scorer.score(*each)["rougeL"].fmeasure for each in zip(*summaries, strict=True)]
    assert sum(scores) / len(scores) >= 0.98
