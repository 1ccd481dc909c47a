"""The generation config of a model's folder, with the summarization settings of its config.json.

transformers 5 has no summarization pipeline and ignores `task_specific_params`. As in the pipeline of transformers 4,
the settings under `summarization` override the generation config.
"""

import json
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from handlers.core.errors import ConfigurationError


def read_generation_config(folder: Path) -> GenerationConfig:
    """Return the generation config of a folder in the hub's layout, updated with its summarization settings."""
    if (folder / "generation_config.json").exists():
        config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    else:
        # Older models have their generation settings in config.json, where from_pretrained() of a model reads them.
        config = GenerationConfig.from_pretrained(
            folder, config_file_name="config.json", _from_model_config=True, local_files_only=True
        )
    config.update(**summarization_settings(read_config_json(folder)))
    return config


def read_config_json(folder: Path) -> dict[str, Any]:
    """Return the content of `config.json`."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def summarization_settings(config_json: dict[str, Any]) -> dict[str, Any]:
    """Return the `summarization` entry of `task_specific_params`, or an empty dictionary if there is none."""
    tasks = config_json.get("task_specific_params") or {}
    return dict(tasks.get("summarization") or {})


def check_decoder_start_token(model_type: Any, generation: Any) -> None:
    """Check that a generation config names the token that decoding starts with.

    The rules for each model type are those of transformers' documentation.

    Args:
        model_type: `model_type` of config.json.
        generation: A `transformers.GenerationConfig`.

    Raises:
        ConfigurationError: A setting is missing or invalid.
    """
    start_token_id, forced_token_id = generation.decoder_start_token_id, generation.forced_bos_token_id
    needs_start_token = model_type in ("mbart", "plbart", "encoder-decoder")
    if start_token_id is None and (needs_start_token or generation.bos_token_id is None):
        raise _missing_setting("decoder_start_token_id", "the token that decoding starts with")
    if not isinstance(start_token_id, int | None) or isinstance(start_token_id, bool):
        raise ConfigurationError(
            f"generation_config.json: 'decoder_start_token_id' must be one token id, not {start_token_id!r}"
        )
    needs_language = model_type in ("m2m_100", "nllb-moe") or (
        model_type == "mbart" and start_token_id == generation.eos_token_id
    )
    if needs_language and forced_token_id is None:
        raise _missing_setting("forced_bos_token_id", "the code of the output language")


def _missing_setting(name: str, description: str) -> ConfigurationError:
    return ConfigurationError(
        f"generation_config.json: {name!r} is missing; set it to the token id of {description}"
    )
