"""The summarization defaults in a model's files: prefix, generation parameters, and number of positions.

transformers 5 has no summarization pipeline and ignores `task_specific_params`. As in the pipeline of transformers 4,
the `summarization` entry of `config.json` overrides the generation config, and its `prefix` is put before each text.
"""

from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, GenerationConfig

from handlers.core.ignored_parameters import GENERATION, IgnoredParameter
from handlers.engines.seq2seq.generation_config import (
    read_config_json,
    read_generation_config,
    summarization_settings,
)
from handlers.engines.seq2seq.generation_types import GenerationParameters
from handlers.text.architectures import check_architecture, position_limits

_MODEL_SETTINGS = ("repetition_penalty", "encoder_no_repeat_ngram_size")
FALLBACK_NEW_TOKENS = 256
"""The default for a model whose files set no length. transformers would stop after 20 tokens."""


@dataclass(frozen=True)
class ModelDefaults:
    """The defaults of one model.

    Attributes:
        prefix: The text before each input.
        parameters: The generation parameters.
        encoder_positions: The number of tokens that the encoder has positions for; None if they are relative.
        decoder_positions: The number of tokens that the decoder has positions for; None if they are relative.
        suggested_input_tokens: `n_positions` of a model with relative positions: the length it was trained with.
        ignored_parameters: Parameters that a request may contain although they have no effect.
    """

    prefix: str
    parameters: GenerationParameters
    encoder_positions: int | None
    decoder_positions: int | None
    suggested_input_tokens: int | None
    ignored_parameters: tuple[IgnoredParameter, ...] = GENERATION


def read_defaults(folder: Path) -> ModelDefaults:
    """Read `config.json` and `generation_config.json` of a folder in the hub's layout.

    Raises:
        ConfigurationError: The architecture is not supported.
    """
    config_json = read_config_json(folder)
    check_architecture(config_json)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    encoder_positions, decoder_positions = position_limits(config)
    generation = read_generation_config(folder)
    return ModelDefaults(
        prefix=str((config_json | summarization_settings(config_json)).get("prefix") or ""),
        parameters=_parameters(generation),
        encoder_positions=encoder_positions,
        decoder_positions=decoder_positions,
        suggested_input_tokens=getattr(config, "n_positions", None),
        ignored_parameters=tuple(
            parameter for parameter in GENERATION if _has_no_effect(parameter, generation)
        ),
    )


def _parameters(config: GenerationConfig) -> GenerationParameters:
    """Return the parameters, with the defaults of transformers for those that are not set."""
    max_new = config.max_new_tokens
    if max_new is None:
        # `max_length` counts the decoder's start token as well.
        max_new = config.max_length - 1 if config.max_length is not None else FALLBACK_NEW_TOKENS
    min_new = config.min_new_tokens
    if min_new is None:
        min_new = (config.min_length or 0) - 1
    return GenerationParameters(
        max_new_tokens=max(1, max_new),
        min_new_tokens=max(0, min_new),
        num_beams=config.num_beams or 1,
        length_penalty=1.0 if config.length_penalty is None else float(config.length_penalty),
        no_repeat_ngram_size=config.no_repeat_ngram_size or 0,
        early_stopping=config.early_stopping or False,
    )


def _has_no_effect(parameter: IgnoredParameter, config: GenerationConfig) -> bool:
    """Return whether the accepted values of a parameter do not change the output of the model.

    The model's files may set the parameters of _MODEL_SETTINGS to other values.
    """
    setting = getattr(config, parameter.name, None)
    return parameter.name not in _MODEL_SETTINGS or setting is None or setting in parameter.values
