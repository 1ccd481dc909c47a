"""Encoding of texts to token ids within the model's length, and decoding of token ids."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from handlers.core.errors import ConfigurationError, TextTooLong
from handlers.text.model_defaults import ModelDefaults

_MAX_TOKENIZER_LENGTH = 1_000_000
"""The largest `model_max_length` that is a real limit. Tokenizers without a limit have about 10^30."""

_FALLBACK_INPUT_TOKENS = 512
"""The default if positions are relative and the tokenizer has no length: the length of T5's training."""

_MAX_CHARACTERS_PER_TOKEN = 16
"""An upper bound for the average of a text, which determines how much of a long text is tokenized."""

_MARGIN_TOKENS = 64
"""The number of tokens before a cut in the text that are discarded as a safety margin."""


class ModelTokenizer:
    """The tokenizer of a model.

    Attributes:
        prefix: The text before each input.
        max_tokens: The largest number of tokens of an input, including prefix and special tokens.
    """

    def __init__(self, folder: Path, defaults: ModelDefaults, max_tokens: int | None = None) -> None:
        """Load the tokenizer.

        Args:
            folder: The model in the hub's layout.
            defaults: The defaults in its files.
            max_tokens: `handler.max_input_tokens`, or None.

        Raises:
            ConfigurationError: `max_tokens` is not above the length of the prefix, or exceeds the model's positions.
        """
        self._tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        self._encode_plain_text = _plain_text_encoder(self._tokenizer)
        self.prefix = defaults.prefix
        self.max_tokens = _max_tokens(self._tokenizer.model_max_length, defaults, max_tokens)
        self.pad_id = int(self._tokenizer.pad_token_id or 0)
        sample = self._tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
        self._suffix = sample[::-1].index(0)
        prefix_tokens = len(self._tokenize(self.prefix))
        if self.max_tokens <= prefix_tokens:
            raise ConfigurationError(
                f"model-config.yaml: 'handler.max_input_tokens' must be above {prefix_tokens}, "
                "the length of the prefix"
            )

    def encode(self, text: str, truncate: bool) -> tuple[tuple[int, ...], bool]:
        """Return the token ids of a text, and whether it was truncated.

        Raises:
            TextTooLong: The text is too long, and `truncate` is False.
        """
        text = self.prefix + text
        ids = self._encode_beginning(text) if truncate else None
        if ids is None:
            ids = self._tokenize(text)
        if len(ids) <= self.max_tokens:
            return tuple(ids), False
        if not truncate:
            raise TextTooLong(
                f"the text has {len(ids)} tokens, this model reads at most {self.max_tokens}, and 'truncation' is off"
            )
        end = len(ids) - self._suffix
        return (*ids[: self.max_tokens - self._suffix], *ids[end:]), True

    def decode(self, ids: Sequence[int], clean_up: bool | None = None) -> str:
        """Return the text without special tokens.

        Args:
            ids: Token ids.
            clean_up: Whether to remove spaces before punctuation; None is the default of the tokenizer's files.
        """
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=clean_up
        )
        return text

    def _encode_beginning(self, text: str) -> list[int] | None:
        """Return the tokens of the beginning of a long text, or None if the whole text must be encoded.

        Only the part that fits into the model is encoded, so that a million characters take as long as a few
        thousand. The part ends before a space, because words are tokenized separately.
        """
        window = _MAX_CHARACTERS_PER_TOKEN * (self.max_tokens + _MARGIN_TOKENS)
        if len(text) <= window:
            return None
        parts = text[:window].rsplit(maxsplit=1)
        ids = self._tokenize(parts[0]) if len(parts) == 2 else []
        return ids if len(ids) > self.max_tokens + _MARGIN_TOKENS else None

    def _tokenize(self, text: str) -> list[int]:
        """Return the token ids, with special tokens around the text. A `</s>` in the text is encoded as text."""
        return self._encode_plain_text(text)


def _plain_text_encoder(tokenizer: Any) -> Callable[[str], list[int]]:
    """Return a function from text to token ids with special tokens around the text, but never within it.

    `split_special_tokens` turns off the search for special tokens. The vocabulary of a unigram model (T5) contains
    them as pieces as well; SentencePiece treats these as control symbols, but `tokenizers` does not. Therefore they
    are renamed with a NUL, which `clean_text` removes from texts.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return lambda text: list(tokenizer(text, split_special_tokens=True, verbose=False)["input_ids"])
    state = json.loads(backend.to_str())
    names = {token["content"]: f"\0{token['content']}" for token in state["added_tokens"] if token["special"]}
    for token in state["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = state["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(piece, piece): number for piece, number in model["vocab"].items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    if model.get("unk_token") is not None:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    plain = Tokenizer.from_str(json.dumps(state))
    plain.encode_special_tokens = True
    plain.no_truncation()
    plain.no_padding()
    return lambda text: list(plain.encode(text).ids)


def _max_tokens(tokenizer_length: int, defaults: ModelDefaults, setting: int | None) -> int:
    """Return the largest number of tokens of a text.

    Args:
        tokenizer_length: `model_max_length` of the tokenizer, the default. The setting may exceed it: T5's positions
            are relative, and FLAN-T5 supports more than the 512 tokens of its tokenizer.
        defaults: The defaults in the model's files.
        setting: `handler.max_input_tokens`.

    Raises:
        ConfigurationError: The setting exceeds the model's positions, or the tokenizer's length is not a number.
    """
    positions = defaults.encoder_positions
    if setting is not None:
        if positions is not None and setting > positions:
            raise ConfigurationError(
                f"model-config.yaml: 'handler.max_input_tokens' is {setting}, and this model has positions for "
                f"{positions} tokens; set it to at most {positions}, or remove the setting"
            )
        return setting
    if (
        isinstance(tokenizer_length, bool)
        or not isinstance(tokenizer_length, int | float)
        or tokenizer_length < 0
    ):
        raise ConfigurationError(
            f"tokenizer_config.json: 'model_max_length' must be a number of tokens, not {tokenizer_length!r}"
        )
    has_length = tokenizer_length <= _MAX_TOKENIZER_LENGTH
    limits = [limit for limit in (int(tokenizer_length) if has_length else None, positions) if limit]
    return min(limits) if limits else defaults.suggested_input_tokens or _FALLBACK_INPUT_TOKENS
