"""Text to token ids within the model's length, and token ids to text."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from handlers.core.errors import ConfigurationError, TextTooLong
from handlers.text.model_defaults import ModelDefaults

_UNKNOWN_LENGTH = 1_000_000
"""Tokenizers that know no length say 10^30 or so."""

_FALLBACK_INPUT_TOKENS = 512
"""For relative positions and a tokenizer that names no length: what T5 and its relatives were trained on."""

_CHARACTERS_PER_TOKEN = 16
_MARGIN = 64
"""How far a cut in the text may be felt in the tokens before it; words are tokenized apart, so in fact not at all."""


class ModelTokenizer:
    """`prefix` stands before every text; `max_tokens` counts it and the special tokens."""

    def __init__(self, folder: Path, defaults: ModelDefaults, max_tokens: int | None = None) -> None:
        """Raises ConfigurationError where `max_tokens` leaves no room for a text or exceeds the model's positions."""
        self._tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        self._read = _reader_of_plain_text(self._tokenizer)
        self.prefix = defaults.prefix
        self.max_tokens = _max_tokens(self._tokenizer.model_max_length, defaults, max_tokens)
        self.pad_id = int(self._tokenizer.pad_token_id or 0)
        sample = self._tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
        self._suffix = sample[::-1].index(0)
        needed = len(self._ids(self.prefix))
        if self.max_tokens <= needed:
            raise ConfigurationError(
                f"model-config.yaml: 'handler.max_input_tokens' must be above {needed}, which the prefix takes"
            )

    def encode(self, text: str, truncate: bool) -> tuple[tuple[int, ...], bool]:
        """Token ids, and whether the text was cut. Raises TextTooLong where it had to be and `truncate` is off."""
        text = self.prefix + text
        ids = self._beginning(text) if truncate else None
        if ids is None:
            ids = self._ids(text)
        if len(ids) <= self.max_tokens:
            return tuple(ids), False
        if not truncate:
            raise TextTooLong(
                f"the text has {len(ids)} tokens, this model reads at most {self.max_tokens}, and 'truncation' is off"
            )
        end = len(ids) - self._suffix
        return (*ids[: self.max_tokens - self._suffix], *ids[end:]), True

    def decode(self, ids: Sequence[int], clean_up: bool | None = None) -> str:
        """Text without special tokens. `clean_up`: no space before punctuation; None: as its files say."""
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=clean_up
        )
        return text

    def _beginning(self, text: str) -> list[int] | None:
        """Tokens of the part of a long text that the model can read, or None where that part is not clear.

        The cut is before a space, where words are tokenized apart: a million characters cost what a few thousand do.
        """
        window = _CHARACTERS_PER_TOKEN * (self.max_tokens + _MARGIN)
        if len(text) <= window:
            return None
        parts = text[:window].rsplit(maxsplit=1)
        ids = self._ids(parts[0]) if len(parts) == 2 else []
        return ids if len(ids) > self.max_tokens + _MARGIN else None

    def _ids(self, text: str) -> list[int]:
        """A text that contains the name of a special token, such as `</s>`, is text: it does not become the token."""
        return self._read(text)


def _reader_of_plain_text(tokenizer: Any) -> Callable[[str], list[int]]:
    """The tokenizer's way from a text to ids with its special tokens around it, but never within it.

    `split_special_tokens` keeps special tokens from being looked for. The vocabulary of a unigram model (T5) has them
    as pieces all the same, which SentencePiece knows to be control symbols and `tokenizers` does not. There they get
    names that no text has: `clean_text` leaves no NUL in one.
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
    """How many tokens a text may have: as `handler.max_input_tokens` says, else as the model's files do.

    The tokenizer's length is a default, which the setting may exceed: T5's positions are relative, and FLAN-T5 reads
    more than the 512 of its tokenizer. Raises ConfigurationError for a setting above the model's own positions.
    """
    positions = defaults.encoder_positions
    if setting is not None:
        if positions is not None and setting > positions:
            raise ConfigurationError(
                f"model-config.yaml: 'handler.max_input_tokens' is {setting}, and this model has positions for "
                f"{positions} tokens; set it to at most {positions}, or leave it out"
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
    known = tokenizer_length <= _UNKNOWN_LENGTH
    bounds = [bound for bound in (int(tokenizer_length) if known else None, positions) if bound]
    return min(bounds) if bounds else defaults.suggested_input_tokens or _FALLBACK_INPUT_TOKENS
