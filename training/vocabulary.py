"""Train the starter summarizers' tokenizers on drawn reports: Unigram for T5, byte-level BPE for BART."""

import json
import math
import string
from collections import Counter
from collections.abc import Iterator

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BartTokenizer, PreTrainedTokenizerBase, T5Tokenizer

from training.reports import TRAINING_SEED, draw_examples

# Maximum tokens of a text.
MAX_TEXT_TOKENS = 512
# The prefix with which T5 was trained for summarization.
T5_PREFIX = "summarize: "

_REPORTS = 20_000
# Enough for every word of the reports to be one token, so that copying a name takes one step.
_BPE_SIZE = 2_000


def t5_tokenizer() -> PreTrainedTokenizerBase:
    """Return a tokenizer with T5's special tokens, and the words and characters of the reports as a Unigram model.

    The vocabulary of the reports is fixed, so the probabilities are word frequencies. The usual Unigram training
    estimates both with a search whose result varies. Other words are encoded as characters.
    """
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(prepend_scheme="always"),
            pre_tokenizers.Punctuation(),
        ]
    )
    counts = Counter(piece for text in _texts(T5_PREFIX) for piece, _ in splitter.pre_tokenize_str(text))
    total = sum(counts.values())
    words = [(piece, math.log(count / total)) for piece, count in sorted(counts.items())]
    # A character costs more than any word, so that only unknown words are spelled.
    rare = math.log(0.1 / total)
    alphabet = ("▁", *sorted(string.printable.strip()))
    characters = [(character, rare) for character in alphabet if character not in counts]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return T5Tokenizer(vocab=[*special, *words, *characters], extra_ids=0, model_max_length=MAX_TEXT_TOKENS)


def bart_tokenizer() -> PreTrainedTokenizerBase:
    """Return a tokenizer with BART's special tokens and ids, and byte-level BPE of the reports."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=_BPE_SIZE,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learner.train_from_iterator(_texts(), trainer)
    learned = json.loads(learner.to_str())["model"]
    merges = [tuple(pair) for pair in learned["merges"]]
    return BartTokenizer(vocab=learned["vocab"], merges=merges, model_max_length=MAX_TEXT_TOKENS)


def _texts(prefix: str = "") -> Iterator[str]:
    for text, summary in draw_examples(TRAINING_SEED, _REPORTS):
        yield prefix + text
        yield summary
