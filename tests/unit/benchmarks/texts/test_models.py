"""The tokenizers, and small networks in the place of large ones."""

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, BartConfig, T5Config
from transformers import BartForConditionalGeneration as Bart
from transformers import T5ForConditionalGeneration as T5

from benchmarks.texts.models import BART_LARGE, T5_SMALL, WORD, make
from benchmarks.texts.workloads import BEAMS, GREEDY, WORKLOADS, Asked
from handlers.text.model_defaults import read_defaults


def small(model):
    torch.manual_seed(1)
    size = {"vocab_size": model.vocabulary, "d_model": 16}
    if model is T5_SMALL:
        tasks = {"summarization": {"prefix": model.prefix}}
        config = T5Config(**size, d_kv=8, d_ff=16, num_layers=1, num_heads=2, task_specific_params=tasks)
        config.decoder_start_token_id = 0
        return T5(config)
    layers = {
        f"{side}_{what}": 1 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")
    }
    net = Bart(BartConfig(**size, **layers, encoder_ffn_dim=16, decoder_ffn_dim=16))
    net.generation_config.forced_bos_token_id = 0
    net.generation_config.forced_eos_token_id = 2
    return net


@pytest.fixture(params=[T5_SMALL, BART_LARGE], ids=lambda model: model.name)
def made(request, tmp_path):
    make(request.param, small(request.param), tmp_path)
    return request.param, tmp_path


def test_a_word_is_a_token_and_back(made):
    model, folder = made
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (len(tokenizer), tokenizer.model_max_length) == (model.vocabulary, model.reads)
    for asked, tokens in zip(WORKLOADS["b"].requests(model), WORKLOADS["b"].inputs, strict=True):
        ids = tokenizer(model.prefix + asked.text, verbose=False)["input_ids"]
        assert len(ids) == tokens
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == model.prefix + asked.text
    last = f"{WORD}{model.words - 1}"
    assert len(tokenizer(last)["input_ids"]) == len(tokenizer("a")["input_ids"])
    assert tokenizer.unk_token_id not in tokenizer(last)["input_ids"]


@pytest.mark.parametrize("settings", [GREEDY, BEAMS], ids=["greedy", "beams"])
def test_an_answer_has_as_many_words_as_tokens_were_asked_for(made, settings):
    model, folder = made
    tokenizer = AutoTokenizer.from_pretrained(folder)
    net = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    inputs = tokenizer(model.prefix + "word1 word2 word3", return_tensors="pt")
    row = net.generate(**inputs, **Asked("", 12, settings).parameters)[0]
    assert len(row) == 13  # the start token too
    assert len(tokenizer.decode(row, skip_special_tokens=True).split()) == 12 - model.slack


def test_our_handler_finds_the_prefix(made):
    model, folder = made
    assert read_defaults(folder).prefix == model.prefix
