"""Checks that workers can load a summarizer and generate summaries."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from handlers.core.errors import ConfigurationError
from handlers.core.exception_handling import model_file_errors
from handlers.engines.seq2seq.generation_config import check_decoder_start_token, read_generation_config
from handlers.text.architectures import check_architecture
from handlers.text.config import SummarizerConfig
from handlers.text.model_defaults import read_defaults
from handlers.text.tokenizer import ModelTokenizer
from torchserve_models.packing.engines.weights import build_zero_network, check_values

SAVE_AGAIN = "save the model again with save_pretrained()"
SAVE_TOKENIZER = "add the files that tokenizer.save_pretrained(folder) writes"
CORRECT_GENERATION = "correct the settings in generation_config.json or config.json"

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


def check_summarizer(folder: Path, settings: Mapping[str, Any] | None = None) -> None:
    """Check the files of a summarizer and the `handler:` settings of its model-config.yaml.

    Args:
        folder: Hugging Face model folder.
        settings: The `handler:` section of model-config.yaml.

    Raises:
        ConfigurationError: Workers cannot load the model. The message names the file, the key and what to do.
    """
    check_architecture(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    network = build_zero_network(folder, AutoModelForSeq2SeqLM)
    check_values(folder, network)
    with model_file_errors("config.json describes no network with embeddings", SAVE_AGAIN):
        input_rows = network.get_input_embeddings().weight.shape[0]
        output = network.get_output_embeddings()
    check_tokenizer(folder, input_rows)
    with model_file_errors("the generation config cannot be read", CORRECT_GENERATION):
        generation = read_generation_config(folder)
    check_decoder_start_token(network.config.model_type, generation)
    check_generation(generation, input_rows if output is None else output.weight.shape[0])
    config = SummarizerConfig.from_mapping(settings)
    with model_file_errors("the summarization settings in config.json cannot be read", CORRECT_GENERATION):
        defaults = read_defaults(folder)
    with model_file_errors("the tokenizer cannot encode a text in the way that workers do", SAVE_TOKENIZER):
        ModelTokenizer(folder, defaults, config.max_input_tokens).encode("A sentence.", truncate=True)


def check_tokenizer(folder: Path, rows: int) -> None:
    """Check that the tokenizer in `folder` loads, encodes and decodes.

    Args:
        folder: Hugging Face model folder.
        rows: Number of rows of the network's embedding; token ids must be lower.

    Raises:
        ConfigurationError: The tokenizer is missing, damaged or does not match the network.
    """
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        ids = tokenizer(_SENTENCE)["input_ids"]
        tokenizer.decode(ids, skip_special_tokens=True)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise ConfigurationError(
            f"the tokenizer does not load, encode and decode ({type(error).__name__}: {text}); {SAVE_TOKENIZER}"
        ) from error
    special = set(tokenizer.all_special_ids)
    # Special tokens are only checked if the sentence has them: the embedding of facebook/bart-large-cnn has no row
    # for <mask>, which never occurs in an encoded text.
    words = {token: number for token, number in vocabulary.items() if number not in special}
    if not ids or not words:
        raise ConfigurationError(f"the vocabulary of the tokenizer is empty; {SAVE_TOKENIZER}")
    checked_ids = words | {token: number for token, number in vocabulary.items() if number in ids}
    token = max(checked_ids, key=checked_ids.__getitem__)
    if checked_ids[token] >= rows:
        raise ConfigurationError(
            f"the tokenizer has the token id {checked_ids[token]} ({token!r}), but the maximum id of the network's "
            f"embedding is {rows - 1}; pack the tokenizer of this model, or call model.resize_token_embeddings() and "
            f"save the model"
        )


def check_generation(generation: Any, rows: int) -> None:
    """Check the token ids and the types of the numbers in a generation config.

    Args:
        generation: A `transformers.GenerationConfig`.
        rows: Number of outputs of the network; token ids must be lower.

    Raises:
        ConfigurationError: A setting is invalid. The message names the setting.
    """
    for name in _TOKEN_SETTINGS:
        for token in _flatten(getattr(generation, name, None)):
            if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < rows:
                raise _invalid_setting(name, f"must be token ids from 0 to {rows - 1}", token)
    for name in _COUNTS:
        value = getattr(generation, name, None)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise _invalid_setting(name, "must be an integer of at least 0", value)
    penalty, stopping = generation.length_penalty, generation.early_stopping
    if not isinstance(penalty, int | float | None) or isinstance(penalty, bool):
        raise _invalid_setting("length_penalty", "must be a number", penalty)
    if not isinstance(stopping, bool | None) and stopping != "never":
        raise _invalid_setting("early_stopping", "must be true, false or 'never'", stopping)


def _flatten(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for part in value:
            yield from _flatten(part)
    elif value is not None:
        yield value


def _invalid_setting(name: str, rule: str, value: Any) -> ConfigurationError:
    return ConfigurationError(
        f"{name!r} {rule}, not {value!r}; correct it in generation_config.json or config.json"
    )
