"""T5-small and BART-large at full size in the layout of the hub: random weights, and one token per word.

The cost of a token does not depend on the weights, except that decoding is faster where words are copied from the
source: see copying.py. With one token per word, lengths are exact: the number of tokens of an input or answer is its
number of words plus its special tokens.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environments import fill_once

SEED = 7
WORD = "word"
"""Prefix of every word. An answer contains it once per word, in any format."""
EXTRA_TOKENS = 2
"""Tokens of an input in addition to its words: the prefix or start token, and the end token."""

_SUMMARIZATION = {"early_stopping": True, "length_penalty": 2.0, "no_repeat_ngram_size": 3, "num_beams": 4}


@dataclass(frozen=True)
class TextModel:
    """A summarizer and its tokenizer.

    Attributes:
        served_as: Name in models/.
        max_input: Tokens to which longer inputs are truncated.
        prefix: Text that precedes every input.
        special_tokens: The first tokens of the vocabulary.
        slack: Maximum number of new tokens that are not words: tokens that the configuration forces.
    """

    name: str
    served_as: str
    title: str
    vocabulary_size: int
    max_input: int
    prefix: str
    special_tokens: tuple[str, ...]
    slack: int

    @property
    def first_word(self) -> int:
        """The token of the first word, which follows the special tokens and the prefix."""
        return len(self.special_tokens) + bool(self.prefix)

    @property
    def word_count(self) -> int:
        """Number of different words; the last token of BART is its mask."""
        return self.vocabulary_size - self.first_word - 1


_T5_TOKENS, _BART_TOKENS = ("<pad>", "</s>", "<unk>"), ("<s>", "<pad>", "</s>", "<unk>")
T5_SMALL = TextModel("t5-small", "t5-small", "T5-small", 32128, 512, "summarize: ", _T5_TOKENS, 0)
BART_LARGE = TextModel("bart-large", "bart-large-cnn", "BART-large", 50265, 1024, "", _BART_TOKENS, 2)
MODELS = {model.name: model for model in (T5_SMALL, BART_LARGE)}


def write_text_model(model: TextModel, folder: Path) -> Path:
    """Write the model to `folder`, unless it exists there, and return the folder."""
    modules = Path(__file__), Path(__file__).with_name("copying.py")
    inputs = model.name.encode() + b"".join(module.read_bytes() for module in modules)
    return fill_once(folder, inputs, lambda empty: save_model(model, create_network(model), empty))


def save_model(model: TextModel, network: Any, folder: Path) -> None:
    """Save a network and the tokenizer in the layout of the hub."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    with torch.no_grad():
        # The head shares the embedding's weights, so the logits of the special tokens are 0, below the maximum of
        # many others: no text ends by chance.
        network.get_input_embeddings().weight[: model.first_word] = 0.0
        network.get_input_embeddings().weight[model.first_word + model.word_count :] = 0.0
    network.save_pretrained(folder)
    _save_tokenizer(model, folder)


def create_network(model: TextModel) -> Any:
    """Return a network configured as google-t5/t5-small or facebook/bart-large-cnn, which copies phrases.

    The first half of the words end a phrase. The default sizes of T5Config and BartConfig are those of T5-small and
    BART-large.
    """
    import torch

    from benchmarks.scenarios.copying import add_copying

    torch.manual_seed(SEED)
    network = _create_random_network(model)
    add_copying(network, torch.arange(model.vocabulary_size) < model.first_word + model.word_count // 2)
    return network


def _create_random_network(model: TextModel) -> Any:
    import transformers

    if model is T5_SMALL:
        task = {**_SUMMARIZATION, "max_length": 200, "min_length": 30, "prefix": model.prefix}
        tasks = {"summarization": task}
        config = transformers.T5Config(
            n_positions=model.max_input, decoder_start_token_id=0, task_specific_params=tasks
        )
        return transformers.T5ForConditionalGeneration(config)
    task = {**_SUMMARIZATION, "max_length": 142, "min_length": 56}
    # CTranslate2 requires these settings of the hub's file
    normalize = {"normalize_before": False, "normalize_embedding": True}
    config = transformers.BartConfig(**normalize, task_specific_params={"summarization": task})
    network = transformers.BartForConditionalGeneration(config)
    tokens = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    tokens |= {"forced_bos_token_id": 0, "forced_eos_token_id": 2}
    network.generation_config = transformers.GenerationConfig(**task, **tokens)
    return network


def _save_tokenizer(model: TextModel, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json: special tokens, the prefix, words, and BART's mask."""
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers.models import WordLevel

    tokens = [*model.special_tokens, *model.prefix.split()]
    tokens += [f"{WORD}{number}" for number in range(model.word_count)]
    if not model.prefix:
        tokens.append("<mask>")
    tokens += [f"<extra{number}>" for number in range(model.vocabulary_size - len(tokens))]
    ids = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    tokenizer.add_special_tokens(list(model.special_tokens))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    begin = "" if model.prefix else "<s> "
    markers = [(token, ids[token]) for token in (begin.strip(), "</s>") if token]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{begin}$A </s>", special_tokens=markers)
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    roles |= {} if model.prefix else {"bos_token": "<s>"}
    # This class exists in all versions of transformers, unlike the one that `save_pretrained` writes.
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": model.max_input, **roles}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
