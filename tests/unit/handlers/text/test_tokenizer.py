"""Equality with the model's tokenizer, truncation, and special tokens in texts."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers.models import Unigram
from transformers import AutoTokenizer

from handlers.core.errors import ConfigurationError, TextTooLong
from handlers.text.model_defaults import ModelDefaults, read_defaults
from handlers.text.tokenizer import ModelTokenizer, _plain_text_encoder
from tests.unit.handlers.text.tiny import SENTENCES, unigram, write_bart, write_pegasus, write_t5

FULLWIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
"""Fullwidth variants of ASCII characters, which T5's normalization converts to ASCII."""
TEXTS = (
    "Rain.",
    SENTENCES[0],
    " ".join(SENTENCES * 3),
    " ".join(SENTENCES * 200),
    "a" * 20_000,
    "word\n\n" * 5_000,
    " " * 5_000 + "x",
    "שלום 😀 中文 e\u0301" * 700,
)


@pytest.fixture(scope="module", params=[write_t5, write_bart])
def folder(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    written: Path = request.param(tmp_path_factory.mktemp("model"), {"prefix": "summarize: "})
    return written


@pytest.fixture(scope="module")
def defaults(folder: Path) -> ModelDefaults:
    return read_defaults(folder)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_tokens_equal_those_of_the_models_tokenizer(folder: Path, defaults: ModelDefaults, text: str) -> None:
    tokenizer, reference = ModelTokenizer(folder, defaults), AutoTokenizer.from_pretrained(folder)
    all_tokens = reference("summarize: " + text, verbose=False)["input_ids"]
    truncated = reference("summarize: " + text, truncation=True, max_length=tokenizer.max_tokens)["input_ids"]
    assert tokenizer.encode(text, truncate=True) == (tuple(truncated), len(all_tokens) > tokenizer.max_tokens)


def test_too_long_text_without_truncation_is_rejected(folder: Path, defaults: ModelDefaults) -> None:
    tokenizer = ModelTokenizer(folder, defaults)
    with pytest.raises(TextTooLong, match=f"at most {tokenizer.max_tokens}"):
        tokenizer.encode(TEXTS[2], truncate=False)
    assert not tokenizer.encode("Rain.", truncate=False)[1]


def test_input_is_limited_by_model_and_server(folder: Path, defaults: ModelDefaults) -> None:
    most = {None: 64, 48: 48}[defaults.encoder_positions]
    assert ModelTokenizer(folder, defaults).max_tokens == most
    if defaults.encoder_positions is None:  # relative positions
        assert ModelTokenizer(folder, defaults, 10_000).max_tokens == 10_000
        ids, truncated = ModelTokenizer(folder, defaults, 10_000).encode(TEXTS[2], truncate=True)
        assert len(ids) > most
        assert not truncated
    else:
        with pytest.raises(ConfigurationError, match=r"'handler\.max_input_tokens' is 10000.* at most 48"):
            ModelTokenizer(folder, defaults, 10_000)
    assert ModelTokenizer(folder, defaults, 40).max_tokens == 40
    assert len(ModelTokenizer(folder, defaults, 40).encode(TEXTS[2], truncate=True)[0]) == 40


def test_limit_below_the_prefix_length_is_rejected(folder: Path, defaults: ModelDefaults) -> None:
    with pytest.raises(ConfigurationError, match="max_input_tokens"):
        ModelTokenizer(folder, defaults, 3)


def test_decoded_text_has_no_special_tokens(folder: Path, defaults: ModelDefaults) -> None:
    tokenizer = ModelTokenizer(folder, defaults)
    ids, _ = tokenizer.encode("The mayor.", truncate=True)
    assert tokenizer.decode(ids) == "summarize: The mayor."


@pytest.mark.parametrize("write", [write_t5, write_bart, write_pegasus])
def test_name_of_a_special_token_is_encoded_as_text(write: Callable[..., Path], tmp_path: Path) -> None:
    """`<mask>` of facebook/bart-large-cnn has no row in the embedding, and `</s>` would end the text."""
    folder = write(tmp_path, {"prefix": ""})
    special, tokenizer = AutoTokenizer.from_pretrained(folder), ModelTokenizer(folder, read_defaults(folder))
    numbers = set(special.all_special_ids) - {special.unk_token_id}
    plain = [number for number in tokenizer.encode("Rain.", truncate=True)[0] if number in numbers]
    for name in set(special.all_special_tokens):
        lookalikes = (name.translate(FULLWIDTH), "\u200b".join(name), f"\u2581{name}", f"\u00a0{name}")
        for text in (*lookalikes, *(f"Rain {lookalike} fell." for lookalike in lookalikes)):
            ids, _ = tokenizer.encode(text, truncate=True)
            assert [number for number in ids if number in numbers] == plain, text
        for text in (name, f"Rain {name} fell.", f"a{name}b", name * 3):
            ids, _ = tokenizer.encode(text, truncate=True)
            assert [number for number in ids if number in numbers] == plain, text
            assert len(ids) > len(plain) + 1  # the name's characters are there


def test_unigram_model_encodes_control_symbols_as_sentencepiece_does(tmp_path: Path) -> None:
    """T5's tokenizer was trained by SentencePiece, for which control symbols in a text are characters."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_writer=written,
        vocab_size=120,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    original = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    pieces = [(original.id_to_piece(index), original.get_score(index)) for index in range(len(original))]
    fast = unigram(64, Unigram(pieces, unk_id=2))
    reader = _plain_text_encoder(fast)
    for text in (
        "Rain fell.",
        "</s>",
        "The </s> bridge<pad>.",
        "<unk>",
        "</s></s> <s>",
        "＜/s＞",
        "</S>",
        "< /s>",
        *SENTENCES,
    ):
        assert reader(text) == [*original.encode(text), 1], text
