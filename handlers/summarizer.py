"""The summarizer's entry: a text to its summary, by T5, BART or any sequence-to-sequence model."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from handlers.core.device import AMX, Device, limit_kernel_caches
from handlers.core.handler import Handler
from handlers.core.parameters import Parameter
from handlers.core.passed_over import PassedOver
from handlers.core.tensor import Payload, Tensor, TensorSpec
from handlers.engines.seq2seq.choice import choose
from handlers.text.batching import plan
from handlers.text.clean import clean_text
from handlers.text.config import SummarizerConfig
from handlers.text.generation import GenerationBatch
from handlers.text.model_defaults import read_defaults
from handlers.text.parameters import GenerationLimits, resolve, truncates
from handlers.text.tokenizer import ModelTokenizer
from handlers.text.types import Summary, TextItem

WARM_UP_TOKENS = 4
KERNEL_CACHE_ENTRIES = 128
"""Shapes of texts hardly repeat, so that more would only take memory."""
ANSWER_SCHEMA = {
    "type": "object",
    "required": ["summary_text"],
    "additionalProperties": False,
    "properties": {
        "summary_text": {"type": "string"},
        "truncated": {"const": True, "description": "There where the text was longer than the model reads."},
    },
    "examples": [{"summary_text": "The bridge over the Aller opens on Monday."}],
}
EXAMPLE = (
    "The new bridge over the Aller will open to traffic on Monday, two months later than planned. Engineers "
    "had found cracks in a bearing in spring, which had to be replaced. The city expects 12,000 cars a day."
)


class Summarizer(Handler[TextItem, Summary]):
    """Any sequence-to-sequence model of transformers, with its own prefix, tokenizer and generation defaults."""

    config_type = SummarizerConfig
    payload_fields = ("text", "data", "file", "inputs")
    output_tensors = (TensorSpec("summary_text", "BYTES", (-1,)), TensorSpec("truncated", "BOOL", (-1,)))
    answer_schema = ANSWER_SCHEMA
    media_type = "text/plain"
    example = EXAMPLE
    takes_numbers = False
    bf16_flags = AMX | {"avx512_bf16"}

    def load(self, folder: Path, config: SummarizerConfig, device: Device) -> None:
        limit_kernel_caches(KERNEL_CACHE_ENTRIES)
        defaults = read_defaults(folder)
        longest = min(config.max_new_tokens, defaults.decoder_positions or config.max_new_tokens)
        limits = GenerationLimits(longest, config.max_num_beams)
        self._config = config
        self._defaults = limits.clamp(defaults.parameters)
        self._parameters = limits.parameters(self._defaults)
        self._passed_over = defaults.passed_over
        self._tokenizer = ModelTokenizer(folder, defaults, config.max_input_tokens)
        self._engine, self._reason = choose(folder, config, device)

    def parameters(self) -> Sequence[Parameter]:
        return self._parameters

    def passed_over(self) -> Sequence[PassedOver]:
        return self._passed_over

    def decode(self, payload: Payload, parameters: dict[str, Any]) -> TextItem:
        generation = resolve(parameters, self._defaults)
        text = clean_text(payload, self._config.max_characters)
        input_ids, truncated = self._tokenizer.encode(text, truncates(parameters))
        return TextItem(input_ids, truncated, generation, parameters.get("clean_up_tokenization_spaces"))

    def batches(self, items: Sequence[TextItem]) -> list[list[int]]:
        return plan(items, self._config.max_batch_tokens)

    def predict(self, items: Sequence[TextItem]) -> list[Summary]:
        batch = GenerationBatch([item.input_ids for item in items], [item.parameters for item in items])
        rows = self._engine.run(batch)
        return [
            Summary(self._tokenizer.decode(tokens, item.clean_up), item.truncated, tuple(tokens))
            for item, tokens in zip(items, rows, strict=True)
        ]

    def encode(self, answer: Summary) -> dict[str, Any]:
        return {"summary_text": answer.text} | ({"truncated": True} if answer.truncated else {})

    def outputs(self, answers: Sequence[Summary]) -> list[Tensor]:
        shape = (len(answers),)
        return [
            Tensor("summary_text", "BYTES", shape, [answer.text for answer in answers]),
            Tensor("truncated", "BOOL", shape, [answer.truncated for answer in answers]),
        ]

    def generated_tokens(self, answer: Summary) -> int:
        return len(answer.token_ids)

    def warm_up(self) -> None:
        tokens = min(WARM_UP_TOKENS, self._config.max_new_tokens)
        for beams in {1, self._defaults.num_beams}:
            item = self.decode(
                "Warm-up.", {"max_new_tokens": tokens, "min_new_tokens": 0, "num_beams": beams}
            )
            self.predict([item])

    def describe(self) -> dict[str, Any]:
        return self._engine.describe() | {
            "reason": self._reason,
            "max_input_tokens": self._tokenizer.max_tokens,
            "max_characters": self._config.max_characters,
            "prefix": self._tokenizer.prefix,
            "defaults": asdict(self._defaults),
        }
