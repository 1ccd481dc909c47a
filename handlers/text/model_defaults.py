"""What a model's own files say about summarizing: prefix, generation defaults, and how many positions it has.

transformers 5 has no summarization pipeline and ignores `task_specific_params`. Both are followed here as that
pipeline did up to transformers 4: the `summarization` entry of `config.json` goes over the generation config, and the
`prefix` is put before each text.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GenerationConfig

from handlers.core.passed_over import GENERATION, PassedOver
from handlers.text.architectures import check_served, position_limits
from handlers.text.generation import GenerationParameters

_OBEYED = ("repetition_penalty", "encoder_no_repeat_ngram_size")
FALLBACK_NEW_TOKENS = 256
"""For a model that names no length at all, where transformers would stop after 20 tokens, in mid-sentence."""


@dataclass(frozen=True)
class ModelDefaults:
    """`encoder_positions`, `decoder_positions`: how many there are, None where positions are relative.

    `passed_over`: what a request may send besides, as it is what the model does anyway.
    """

    prefix: str
    parameters: GenerationParameters
    encoder_positions: int | None
    decoder_positions: int | None
    suggested_input_tokens: int | None
    """`n_positions` of a model with relative positions: what it was trained on, not a bound."""
    passed_over: tuple[PassedOver, ...] = GENERATION


def read_defaults(folder: Path) -> ModelDefaults:
    """Read `config.json` and `generation_config.json` of a folder in the hub's layout.

    Raises ConfigurationError for an architecture that is not served.
    """
    check_served(_config_json(folder))
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    encoder_positions, decoder_positions = position_limits(config)
    generation = generation_config(folder)
    return ModelDefaults(
        prefix=str(_merged(folder).get("prefix") or ""),
        parameters=_parameters(generation),
        encoder_positions=encoder_positions,
        decoder_positions=decoder_positions,
        suggested_input_tokens=getattr(config, "n_positions", None),
        passed_over=tuple(each for each in GENERATION if _changes_nothing(each, generation)),
    )


def generation_config(folder: Path) -> GenerationConfig:
    """The model's generation config with its summarization parameters over it."""
    if (folder / "generation_config.json").exists():
        config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    else:
        # As loading a model does: generation settings of older models stand in `config.json` itself.
        config = GenerationConfig.from_pretrained(
            folder, config_file_name="config.json", _from_model_config=True, local_files_only=True
        )
    config.update(**_task_parameters(_config_json(folder)))
    return config


def _parameters(config: GenerationConfig) -> GenerationParameters:
    """Unset ones are transformers' own defaults: greedy, no minimum, no penalty."""
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


def _changes_nothing(parameter: PassedOver, config: GenerationConfig) -> bool:
    """Whether its values are what the model does anyway: its files are obeyed for the parameters of _OBEYED."""
    own = getattr(config, parameter.name, None)
    return parameter.name not in _OBEYED or own is None or own in parameter.values


def _merged(folder: Path) -> dict[str, Any]:
    config = _config_json(folder)
    return config | _task_parameters(config)


def _task_parameters(config: dict[str, Any]) -> dict[str, Any]:
    tasks = config.get("task_specific_params") or {}
    return dict(tasks.get("summarization") or {})


def _config_json(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config
