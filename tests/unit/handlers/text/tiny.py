"""Tiny random T5, BART and Pegasus in the hub's layout, with tokenizers that are created here."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    PegasusConfig,
    PegasusForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

SENTENCES = (
    "The council of the small town met on Tuesday evening to talk about the old bridge.",
    "Engineers found cracks in two of its five arches, and traffic was moved to the northern road.",
    "Repairs begin in March; they will cost about 3,400,000 and take eighteen months, said the mayor.",
    "A baker, whose shop stands beside the river, worries that nobody will come by any more.",
    "Others are glad of the quiet. Children play football where lorries used to wait!",
)
TEXTS = (
    SENTENCES[0],
    " ".join(SENTENCES[1:3]),
    SENTENCES[3],
    "Rain.",
    " ".join(SENTENCES),
)


def write_t5(
    folder: Path, task_parameters: dict[str, Any] | None = None, seed: int = 0, layers: int = 3
) -> Path:
    """Write a T5 with `layers` layers in each half, relative positions and a unigram tokenizer of 64 tokens."""
    fast = unigram(64)
    config = T5Config(
        vocab_size=len(fast),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=layers,
        num_heads=4,
        decoder_start_token_id=0,
    )
    return write_model(folder, T5ForConditionalGeneration, config, fast, task_parameters, seed)


def write_pegasus(folder: Path, task_parameters: dict[str, Any] | None = None, seed: int = 0) -> Path:
    """Write a Pegasus with two layers and 56 sinusoidal positions."""
    fast = unigram(56)
    config = PegasusConfig(
        vocab_size=len(fast),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=56,
        scale_embedding=True,
    )
    return write_model(folder, PegasusForConditionalGeneration, config, fast, task_parameters, seed)


def _pieces() -> list[tuple[str, float]]:
    """Return pieces of one and two characters. Training a tokenizer would not be deterministic."""
    words = [f"▁{word}" for sentence in (*SENTENCES, "summarize: ") for word in sentence.split()]
    pairs = {word[at : at + 2] for word in words for at in range(0, len(word), 2)}
    characters = {character for word in words for character in word}
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return special + [(piece, -2.0 * (3 - len(piece))) for piece in sorted(pairs | characters)]


def unigram(length: int, model: models.Unigram | None = None) -> PreTrainedTokenizerFast:
    """Return a tokenizer with a maximum of `length` tokens. <pad>, </s> and <unk> have the ids 0, 1 and 2."""
    tokenizer = Tokenizer(model or models.Unigram(_pieces(), unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=length,
    )


def write_bart(
    folder: Path, task_parameters: dict[str, Any] | None = None, seed: int = 0, layers: int = 4
) -> Path:
    """Write a BART with `layers` layers in each half, 48 learned positions and a byte-level tokenizer."""
    fast = byte_level()
    config = BartConfig(
        vocab_size=len(fast),
        d_model=32,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=48,
    )
    return write_model(folder, BartForConditionalGeneration, config, fast, task_parameters, seed)


def byte_level(languages: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Return a tokenizer with the ids 0 to 3 for <s>, <pad>, </s> and <unk>, followed by the `languages`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", *languages]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator((*SENTENCES, "summarize: "), trainer)
    template = f"{languages[0]} $A </s>" if languages else "<s> $A </s>"
    ids = [(token, special.index(token)) for token in (*special, *languages)]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def write_model(
    folder: Path,
    architecture: Any,
    config: Any,
    tokenizer: Any,
    task_parameters: dict[str, Any] | None,
    seed: int,
) -> Path:
    torch.manual_seed(seed)
    model = architecture(config)
    for name, weights in model.named_parameters():
        # Large enough that next tokens differ clearly, and summaries end at varied lengths.
        if "norm" not in name.lower() and weights.requires_grad:
            torch.nn.init.normal_(weights, std=0.4)
    # The end token is likely, so that some summaries end much earlier than others.
    model.get_input_embeddings().weight.data[config.eos_token_id] *= 2
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if task_parameters is not None:
        path = folder / "config.json"
        settings = json.loads(path.read_text())
        settings["task_specific_params"] = {
            "summarization": task_parameters,
            "translation": {"prefix": "no: "},
        }
        path.write_text(json.dumps(settings))
    return folder
