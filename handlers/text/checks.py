"""Checks of a summarizer's tokenizer and generation config at packing, against the network's embeddings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from handlers.core.errors import ConfigurationError

_SENTENCE = "The new bridge will open on Monday, two months later than planned."
_TOKEN_SETTINGS = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "suppress_tokens",
    "begin_suppress_tokens",
    "bad_words_ids",
)
_COUNTS = (
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_new_tokens",
    "num_beams",
    "no_repeat_ngram_size",
)


def check_tokenizer(folder: Path, rows: int) -> None:
    """Check that the tokenizer of `folder` loads, encodes and decodes, with ids below `rows`, the embedding's.

    Raises ConfigurationError saying what to do.
    """
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        ids = tokenizer(_SENTENCE)["input_ids"]
        tokenizer.decode(ids, skip_special_tokens=True)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise ConfigurationError(
            f"the tokenizer does not load, encode and decode ({type(error).__name__}: {text}); add what "
            "tokenizer.save_pretrained(folder) writes"
        ) from error
    special = set(tokenizer.all_special_ids)
    # Not the special ones: the embedding of facebook/bart-large-cnn has no row for <mask>, which no text becomes.
    words = {token: number for token, number in vocabulary.items() if number not in special}
    if not ids or not words:
        raise ConfigurationError(
            "the tokenizer has no words: its vocabulary is empty; add what tokenizer.save_pretrained(folder) writes"
        )
    needed = words | {token: number for token, number in vocabulary.items() if number in ids}
    token = max(needed, key=lambda each: needed[each])
    if needed[token] >= rows:
        raise ConfigurationError(
            f"the tokenizer has the id {needed[token]} ({token!r}), and the network's embedding ends at "
            f"{rows - 1}: they do not belong together, or model.resize_token_embeddings() was forgotten"
        )


def check_generation(generation: Any, rows: int) -> None:
    """Check a generation config: token ids below `rows`, the network's outputs, and numbers where they belong.

    Raises ConfigurationError naming the setting.
    """
    for name in _TOKEN_SETTINGS:
        for token in _flat(getattr(generation, name, None)):
            if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < rows:
                raise _wrong(name, f"must be token ids from 0 to {rows - 1}", token)
    for name in _COUNTS:
        value = getattr(generation, name, None)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise _wrong(name, "must be an integer of at least 0", value)
    penalty, stopping = generation.length_penalty, generation.early_stopping
    if not isinstance(penalty, int | float | None) or isinstance(penalty, bool):
        raise _wrong("length_penalty", "must be a number", penalty)
    if not isinstance(stopping, bool | None) and stopping != "never":
        raise _wrong("early_stopping", "must be true, false or 'never'", stopping)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for part in value:
            yield from _flat(part)
    elif value is not None:
        yield value


def _wrong(name: str, rule: str, value: Any) -> ConfigurationError:
    return ConfigurationError(
        f"{name!r} {rule}, not {value!r}; correct it in generation_config.json, or in config.json where that has it"
    )
