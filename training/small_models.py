"""The small T5 and BART of the starter weights: networks, generation defaults and saving."""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    PreTrainedTokenizerBase,
    T5Config,
    T5ForConditionalGeneration,
)

from training.vocabulary import MAX_TEXT_TOKENS, T5_PREFIX, bart_tokenizer, t5_tokenizer

# For summaries of 15 to 32 tokens, like those of bart-large-cnn.
GENERATION = {
    "num_beams": 4,
    "min_length": 12,
    "max_length": 60,
    "length_penalty": 2.0,
    "no_repeat_ngram_size": 3,
    "early_stopping": True,
}


def small_t5(tokenizer: PreTrainedTokenizerBase) -> T5ForConditionalGeneration:
    """Return a T5 of about a million parameters, with two encoder and two decoder layers."""
    config = T5Config(
        vocab_size=len(tokenizer),
        n_positions=MAX_TEXT_TOKENS,
        d_model=128,
        d_kv=32,
        d_ff=512,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=32,
        relative_attention_max_distance=128,
        dropout_rate=0.0,
        decoder_start_token_id=tokenizer.pad_token_id,
        task_specific_params={"summarization": {**GENERATION, "prefix": T5_PREFIX}},
        dtype="float32",
    )
    return T5ForConditionalGeneration(config)


def small_bart(tokenizer: PreTrainedTokenizerBase) -> BartForConditionalGeneration:
    """Return a BART of about a million parameters, with two encoder and two decoder layers.

    Its position embeddings are initialized as sinusoids. From random ones, learning to attend to the previous word
    takes most of the training.
    """
    config = BartConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_TEXT_TOKENS,
        d_model=128,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
        dropout=0.0,
        # Scaled for d_model inputs; BART's 0.02 is for a width of 1024.
        init_std=128**-0.5,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=tokenizer.eos_token_id,
        task_specific_params={"summarization": GENERATION},
        dtype="float32",
    )
    model = BartForConditionalGeneration(config)
    for stack in (model.model.encoder, model.model.decoder):
        positions = stack.embed_positions.weight
        positions.data.copy_(_sinusoids(*positions.shape) * config.init_std)
    return model


def _sinusoids(count: int, width: int) -> torch.Tensor:
    """Return the positions of "Attention Is All You Need", sines first and then cosines."""
    rates = 10_000 ** -torch.linspace(0, 1, width // 2)
    angles = torch.arange(count).unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


TOKENIZERS = {"t5": t5_tokenizer, "bart": bart_tokenizer}
NETWORKS = {"t5": small_t5, "bart": small_bart}


def prefix_of(config: Any) -> str:
    """Return the prefix that names the task in each text, "" for BART."""
    return str(((config.task_specific_params or {}).get("summarization") or {}).get("prefix", ""))


def generation_config(config: Any) -> GenerationConfig:
    """Return the generation defaults of a model with this config."""
    special: dict[str, Any] = {
        "decoder_start_token_id": config.decoder_start_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
    }
    if config.model_type == "bart":
        special |= {
            "bos_token_id": config.bos_token_id,
            "forced_bos_token_id": config.bos_token_id,
            "forced_eos_token_id": config.eos_token_id,
        }
    return GenerationConfig(**GENERATION, **special)


def save(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the model and its tokenizer in the hub's layout, with weights in fp16 for half the size.

    config.json says float32, so the model loads in fp32.
    """
    stored = copy.deepcopy(model).half()
    stored.generation_config = generation_config(model.config)
    stored.save_pretrained(folder)
    stored.config.dtype = torch.float32
    stored.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
