"""T5-small and BART-large at full size in the hub's layout: random weights, and a tokenizer of one token a word.

What a token costs does not depend on what the weights say. With a token a word, lengths are exact: a text of so many
words is so many tokens beside the special ones, and so is an answer.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.weights import made_once

SEED = 7
WORD = "word"
"""How every word begins: whatever the form of an answer, it says this once for each word."""

_SUMMARIZATION = {"early_stopping": True, "length_penalty": 2.0, "no_repeat_ngram_size": 3, "num_beams": 4}


@dataclass(frozen=True)
class TextModel:
    """`around` are the tokens beside a text's words: the prefix's and the special ones."""

    name: str
    served_as: str
    """Its name in models/."""

    title: str
    vocabulary: int
    reads: int
    prefix: str
    specials: tuple[str, ...]
    around: int
    slack: int
    """New tokens that may be no words: those at the beginning and end that its configuration forces."""

    @property
    def first_word(self) -> int:
        """The token of the first word: specials, and the prefix where there is one, come before."""
        return len(self.specials) + bool(self.prefix)

    @property
    def words(self) -> int:
        """How many different ones there are; BART's last token is its mask."""
        return self.vocabulary - self.first_word - 1


T5_SMALL = TextModel(
    "t5-small",
    "t5-small",
    "T5-small",
    32128,
    512,
    "summarize: ",
    ("<pad>", "</s>", "<unk>"),
    around=2,
    slack=0,
)
BART_LARGE = TextModel(
    "bart-large",
    "bart-large-cnn",
    "BART-large",
    50265,
    1024,
    "",
    ("<s>", "<pad>", "</s>", "<unk>"),
    around=2,
    slack=2,
)
MODELS = {model.name: model for model in (T5_SMALL, BART_LARGE)}


def full_size(model: TextModel, folder: Path) -> Path:
    """Writes the model to `folder`, unless this one is there already, and returns it."""
    made_of = model.name.encode() + Path(__file__).read_bytes()
    return made_once(folder, made_of, lambda unfinished: make(model, network(model), unfinished))


def make(model: TextModel, net: Any, folder: Path) -> None:
    """`net` in the hub's layout. Its special tokens are never the likeliest ones: they end nothing by chance."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    with torch.no_grad():
        # The head has the same weights as the embedding, so that these tokens' logits are 0, below the best of many.
        net.get_input_embeddings().weight[: model.first_word] = 0.0
        net.get_input_embeddings().weight[model.first_word + model.words :] = 0.0
    net.save_pretrained(folder)
    tokenizer(model, folder)


def network(model: TextModel) -> Any:
    """As the hub's google-t5/t5-small and facebook/bart-large-cnn are configured."""
    import torch

    torch.manual_seed(SEED)
    return _t5(model) if model is T5_SMALL else _bart(model)


def _t5(model: TextModel) -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=model.vocabulary,
        d_model=512,
        d_kv=64,
        d_ff=2048,
        num_layers=6,
        num_heads=8,
        n_positions=model.reads,
        feed_forward_proj="relu",
        decoder_start_token_id=0,
        task_specific_params={
            "summarization": {**_SUMMARIZATION, "max_length": 200, "min_length": 30, "prefix": model.prefix}
        },
    )
    return T5ForConditionalGeneration(config)


def _bart(model: TextModel) -> Any:
    from transformers import BartConfig, BartForConditionalGeneration, GenerationConfig

    config = BartConfig(
        vocab_size=model.vocabulary,
        d_model=1024,
        encoder_layers=12,
        decoder_layers=12,
        encoder_attention_heads=16,
        decoder_attention_heads=16,
        encoder_ffn_dim=4096,
        decoder_ffn_dim=4096,
        max_position_embeddings=model.reads,
        activation_function="gelu",
        scale_embedding=False,
        normalize_before=False,  # the hub's file says so too; CTranslate2 looks for it
        normalize_embedding=True,
        task_specific_params={"summarization": {**_SUMMARIZATION, "max_length": 142, "min_length": 56}},
    )
    net = BartForConditionalGeneration(config)
    net.generation_config = GenerationConfig(
        **_SUMMARIZATION,
        max_length=142,
        min_length=56,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_bos_token_id=0,
        forced_eos_token_id=2,
    )
    return net


def tokenizer(model: TextModel, folder: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json: special tokens, the prefix's word, words, BART's mask."""
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers.models import WordLevel

    words = [*model.specials, *model.prefix.split(), *(f"{WORD}{number}" for number in range(model.words))]
    if not model.prefix:
        words.append("<mask>")
    words += [f"<extra{number}>" for number in range(model.vocabulary - len(words))]
    ids = {word: number for number, word in enumerate(words)}
    made = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    made.add_special_tokens(list(model.specials))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    begin = "" if model.prefix else "<s> "
    marks = [(mark, ids[mark]) for mark in (begin.strip(), "</s>") if mark]
    made.post_processor = processors.TemplateProcessing(single=f"{begin}$A </s>", special_tokens=marks)
    made.save(str(folder / "tokenizer.json"))
    roles = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    roles |= {} if model.prefix else {"bos_token": "<s>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": model.reads, **roles}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
