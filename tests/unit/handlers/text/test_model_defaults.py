"""The defaults in a model's files, in the forms of published models."""

import json
from pathlib import Path
from typing import Any

import pytest

from handlers.core.ignored_parameters import GENERATION
from handlers.engines.seq2seq.generation_types import GenerationParameters
from handlers.text.model_defaults import FALLBACK_NEW_TOKENS, read_defaults

T5_SMALL = {
    "model_type": "t5",
    "n_positions": 512,
    "decoder_start_token_id": 0,
    "task_specific_params": {
        "summarization": {
            "early_stopping": True,
            "length_penalty": 2.0,
            "max_length": 200,
            "min_length": 30,
            "no_repeat_ngram_size": 3,
            "num_beams": 4,
            "prefix": "summarize: ",
        },
        "translation_en_to_de": {"max_length": 300, "prefix": "translate English to German: "},
    },
}
BART_CNN = {
    "model_type": "bart",
    "prefix": " ",
    "max_position_embeddings": 1024,
    "max_length": 100,
    "num_beams": 4,
    "length_penalty": 2.0,
    "early_stopping": True,
    "task_specific_params": {"summarization": {"max_length": 142, "min_length": 56}},
}


def write(folder: Path, config: dict[str, Any], generation: dict[str, Any] | None = None) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


@pytest.mark.parametrize(
    "generation", [None, {"_from_model_config": True, "eos_token_id": 1, "pad_token_id": 0}]
)
def test_t5_defaults_come_from_its_task_parameters(tmp_path: Path, generation: dict[str, Any] | None) -> None:
    defaults = read_defaults(write(tmp_path, T5_SMALL, generation))
    assert defaults.prefix == "summarize: "
    assert defaults.parameters == GenerationParameters(199, 29, 4, 2.0, 3, True)
    assert (defaults.encoder_positions, defaults.decoder_positions) == (None, None)
    assert defaults.suggested_input_tokens == 512


def test_bart_defaults_come_from_its_config_json(tmp_path: Path) -> None:
    defaults = read_defaults(write(tmp_path, BART_CNN))
    assert defaults.prefix == " "
    assert defaults.parameters == GenerationParameters(141, 55, 4, 2.0, 0, True)
    assert (defaults.encoder_positions, defaults.decoder_positions) == (1024, 1024)


def test_task_parameters_override_generation_config_and_config_json(tmp_path: Path) -> None:
    generation = {"num_beams": 2, "max_new_tokens": 70, "min_length": 5, "no_repeat_ngram_size": 2}
    parameters = read_defaults(write(tmp_path, BART_CNN, generation)).parameters
    assert parameters == GenerationParameters(70, 55, 2, 1.0, 2, False)


def test_model_without_settings_has_fallback_defaults(tmp_path: Path) -> None:
    defaults = read_defaults(write(tmp_path, {"model_type": "t5", "task_specific_params": None}))
    assert defaults.prefix == ""
    assert defaults.parameters == GenerationParameters(max_new_tokens=FALLBACK_NEW_TOKENS)
    assert defaults.suggested_input_tokens is None


def test_encoder_and_decoder_have_separate_positions(tmp_path: Path) -> None:
    config = {
        "model_type": "led",
        "max_encoder_position_embeddings": 16384,
        "max_decoder_position_embeddings": 1024,
    }
    defaults = read_defaults(write(tmp_path, config))
    assert (defaults.encoder_positions, defaults.decoder_positions) == (16384, 1024)


def test_parameter_that_the_models_files_set_is_not_ignored(tmp_path: Path) -> None:
    names = {parameter.name for parameter in read_defaults(write(tmp_path, BART_CNN)).ignored_parameters}
    assert names == {parameter.name for parameter in GENERATION}
    generation = {"repetition_penalty": 1.3, "encoder_no_repeat_ngram_size": 4, "temperature": 0.5}
    ignored = {
        parameter.name
        for parameter in read_defaults(write(tmp_path, BART_CNN, generation)).ignored_parameters
    }
    assert names - ignored == {"repetition_penalty", "encoder_no_repeat_ngram_size"}
