"""The summarizer's input and output types."""

from dataclasses import dataclass

from handlers.engines.seq2seq.generation_types import GenerationParameters


@dataclass(frozen=True)
class TextItem:
    """One text, ready for the model.

    Attributes:
        input_ids: The token ids of the text.
        truncated: Whether the text was truncated to the model's length.
        parameters: The generation parameters.
        clean_up: Whether to remove spaces before punctuation; None is the tokenizer's default.
    """

    input_ids: tuple[int, ...]
    truncated: bool
    parameters: GenerationParameters
    clean_up: bool | None = None


@dataclass(frozen=True)
class Summary:
    """One summary.

    Attributes:
        text: The summary.
        truncated: Whether the text was truncated to the model's length.
        token_ids: The generated tokens, including the end token.
    """

    text: str
    truncated: bool
    token_ids: tuple[int, ...]
