"""What the summarizer hands on: an item before the model, a summary after it."""

from dataclasses import dataclass

from handlers.text.generation import GenerationParameters


@dataclass(frozen=True)
class TextItem:
    """One text, ready for the model. `clean_up`: no space before punctuation; None is the tokenizer's own choice."""

    input_ids: tuple[int, ...]
    truncated: bool
    parameters: GenerationParameters
    clean_up: bool | None = None


@dataclass(frozen=True)
class Summary:
    """`truncated`: the model could not read the whole text. `token_ids`: as generated, the end token included."""

    text: str
    truncated: bool
    token_ids: tuple[int, ...]
