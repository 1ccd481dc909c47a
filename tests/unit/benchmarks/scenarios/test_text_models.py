"""Tokenizers at full size, and small networks instead of large ones."""

import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from benchmarks.scenarios.text_models import BART_LARGE, T5_SMALL, WORD, save_model
from benchmarks.scenarios.workloads import BEAM_SEARCH, GREEDY, WORKLOADS, TextRequest
from handlers.text.model_defaults import read_defaults
from tests.unit.benchmarks.scenarios.small_networks import create_small_network


@pytest.fixture(params=[T5_SMALL, BART_LARGE], ids=lambda model: model.name, scope="module")
def saved_model(request, tmp_path_factory):
    model, folder = request.param, tmp_path_factory.mktemp(request.param.name)
    save_model(model, create_small_network(model, model.vocabulary_size), folder)
    return model, folder


def test_each_word_is_one_token(saved_model):
    model, folder = saved_model
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (len(tokenizer), tokenizer.model_max_length) == (model.vocabulary_size, model.max_input)
    workload = WORKLOADS["b"]
    for request, length in zip(workload.requests(model), workload.input_lengths, strict=True):
        text = request.prefix + request.text
        ids = tokenizer(text, verbose=False)["input_ids"]
        assert len(ids) == length
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.unk_token_id not in tokenizer(f"{WORD}{model.word_count - 1}")["input_ids"]


@pytest.mark.parametrize("settings", [GREEDY, BEAM_SEARCH], ids=["greedy", "beams"])
def test_answer_has_one_word_per_new_token(saved_model, settings):
    model, folder = saved_model
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    inputs = tokenizer(model.prefix + "word1 word2 word3", return_tensors="pt")
    ids = network.generate(**inputs, **TextRequest("", "", 12, settings).parameters)[0]
    assert len(ids) == 13  # with the start token
    assert len(tokenizer.decode(ids, skip_special_tokens=True).split()) == 12 - model.slack


def test_handler_reads_the_prefix(saved_model):
    model, folder = saved_model
    assert read_defaults(folder).prefix == model.prefix
