"""Checks at packing that a worker will be able to load a summarizer and to answer with it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoModelForSeq2SeqLM

from handlers.core.faults import model_file_errors
from handlers.engines.weights import check_values, fit
from handlers.text.architectures import check_served, check_start
from handlers.text.checks import check_generation, check_tokenizer
from handlers.text.config import SummarizerConfig
from handlers.text.model_defaults import generation_config, read_defaults
from handlers.text.tokenizer import ModelTokenizer

SAVE_AGAIN = "save the model again with save_pretrained()"
SAVE_TOKENIZER = "add what tokenizer.save_pretrained(folder) writes"
CORRECT_GENERATION = "correct generation_config.json, or config.json where that has the settings"


def check_summarizer(folder: Path, settings: Mapping[str, Any] | None = None) -> None:
    """Check a model's folder, and that the `handler:` settings of its configuration suit it.

    Raises ConfigurationError naming the file and the key, and what to do.
    """
    check_served(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    network = fit(folder, AutoModelForSeq2SeqLM)
    check_values(folder, network)
    with model_file_errors("config.json describes no network with embeddings", SAVE_AGAIN):
        inputs = network.get_input_embeddings().weight.shape[0]
        output = network.get_output_embeddings()
    check_tokenizer(folder, inputs)
    with model_file_errors("the generation config cannot be read", CORRECT_GENERATION):
        generation = generation_config(folder)
    check_start(network.config.model_type, generation)
    check_generation(generation, inputs if output is None else output.weight.shape[0])
    config = SummarizerConfig.from_mapping(settings)
    with model_file_errors("the settings for summarizing in config.json cannot be read", CORRECT_GENERATION):
        defaults = read_defaults(folder)
    with model_file_errors("the tokenizer does not encode as a worker does", SAVE_TOKENIZER):
        ModelTokenizer(folder, defaults, config.max_input_tokens).encode("A sentence.", truncate=True)
