"""T5 and BART with heads of full size, but few layers and words."""

from typing import Any

import torch
from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

from benchmarks.scenarios.text_models import T5_SMALL, TextModel

WIDTH, HEADS = 384, 6


def create_small_network(model: TextModel, vocabulary_size: int) -> Any:
    torch.manual_seed(3)
    sizes = {"vocab_size": vocabulary_size, "d_model": WIDTH}
    if model is T5_SMALL:
        tasks = {"summarization": {"prefix": model.prefix}}
        config = T5Config(
            **sizes, d_kv=64, d_ff=64, num_layers=2, num_heads=HEADS, task_specific_params=tasks
        )
        config.decoder_start_token_id = 0
        return T5ForConditionalGeneration(config)
    for part in ("encoder", "decoder"):
        sizes |= {f"{part}_layers": 2, f"{part}_attention_heads": HEADS, f"{part}_ffn_dim": 64}
    network = BartForConditionalGeneration(BartConfig(**sizes))
    network.generation_config.forced_bos_token_id = 0
    network.generation_config.forced_eos_token_id = 2
    return network
