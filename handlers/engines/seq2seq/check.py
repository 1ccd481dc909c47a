"""Checks at packing that a worker will be able to load a summarizer and to answer with it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoModelForSeq2SeqLM

from handlers.core.errors import ConfigurationError
from handlers.engines.weights import check_values, fit, line
from handlers.text.architectures import check_served, check_start
from handlers.text.checks import check_generation, check_tokenizer
from handlers.text.config import SummarizerConfig
from handlers.text.model_defaults import generation_config, read_defaults
from handlers.text.tokeniser import Tokeniser


def check_summarizer(folder: Path, settings: Mapping[str, Any] | None = None) -> None:
    """Check a model's folder, and that the `handler:` settings of its configuration suit it.

    Raises ConfigurationError naming the file and the key, and what to do.
    """
    check_served(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    network = fit(folder, AutoModelForSeq2SeqLM)
    check_values(folder, network)
    inputs = network.get_input_embeddings().weight.shape[0]
    output = network.get_output_embeddings()
    check_tokenizer(folder, inputs)
    try:
        generation = generation_config(folder)
    except Exception as error:
        raise ConfigurationError(f"the generation config cannot be read: {line(error)}") from error
    check_start(network.config.model_type, generation)
    check_generation(generation, inputs if output is None else output.weight.shape[0])
    config = SummarizerConfig.from_mapping(settings)
    Tokeniser(folder, read_defaults(folder), config.max_input_tokens)
