"""Entry module of the summarizer, which supports T5, BART and other sequence-to-sequence models."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from handlers.core.device import FAST_BF16, Device, limit_kernel_caches
from handlers.core.exception_handling import is_out_of_memory
from handlers.core.handler import Handler
from handlers.core.ignored_parameters import IgnoredParameter
from handlers.core.parameters import Parameter
from handlers.core.tensor import Payload, Tensor, TensorSpec
from handlers.engines.seq2seq.engine_selection import select_engine
from handlers.engines.seq2seq.generation_types import GenerationBatch
from handlers.text.batching import plan_batches
from handlers.text.clean import clean_text
from handlers.text.config import SummarizerConfig
from handlers.text.model_defaults import read_defaults
from handlers.text.parameters import GenerationLimits, resolve_parameters, should_truncate
from handlers.text.tokenizer import ModelTokenizer
from handlers.text.types import Summary, TextItem

logger = logging.getLogger(__name__)

WARM_UP_TOKENS = 4
GPU_WARM_UP_S = 20.0
"""Seconds after which the warm-up starts no further typical batch."""
KERNEL_CACHE_ENTRIES = 128
"""Maximum number of entries of the kernel caches. Text shapes rarely repeat, so more entries only take memory."""
ANSWER_SCHEMA = {
    "type": "object",
    "required": ["summary_text"],
    "additionalProperties": False,
    "properties": {
        "summary_text": {"type": "string"},
        "truncated": {"const": True, "description": "Present if the text was longer than the model's limit."},
    },
    "examples": [{"summary_text": "The bridge over the Aller opens on Monday."}],
}
EXAMPLE = (
    "The new bridge over the Aller will open to traffic on Monday, two months later than planned. Engineers "
    "had found cracks in a bearing in spring, which had to be replaced. The city expects 12,000 cars a day."
)


class Summarizer(Handler[TextItem, Summary]):
    """A handler for summarization with any sequence-to-sequence model of transformers."""

    config_type = SummarizerConfig
    payload_fields = ("text", "data", "file", "inputs")
    output_tensors = (TensorSpec("summary_text", "BYTES", (-1,)), TensorSpec("truncated", "BOOL", (-1,)))
    answer_schema = ANSWER_SCHEMA
    media_type = "text/plain"
    example = EXAMPLE
    takes_numbers = False
    bf16_flags = FAST_BF16

    def load(self, folder: Path, config: SummarizerConfig, device: Device) -> None:
        limit_kernel_caches(KERNEL_CACHE_ENTRIES)
        defaults = read_defaults(folder)
        max_new_tokens = min(config.max_new_tokens, defaults.decoder_positions or config.max_new_tokens)
        limits = GenerationLimits(max_new_tokens, config.max_num_beams)
        self._config = config
        self._defaults = limits.clamp(defaults.parameters)
        self._parameters = limits.parameters(self._defaults)
        self._ignored_parameters = defaults.ignored_parameters
        self._tokenizer = ModelTokenizer(folder, defaults, config.max_input_tokens)
        self._engine, self._reason = select_engine(
            *(folder, device, config.engine, config.precision, config.max_batch_tokens),
            prompt_lookup_num_tokens=config.prompt_lookup_num_tokens,
        )

    def parameters(self) -> Sequence[Parameter]:
        return self._parameters

    def ignored_parameters(self) -> Sequence[IgnoredParameter]:
        return self._ignored_parameters

    def decode(self, payload: Payload, parameters: dict[str, Any]) -> TextItem:
        generation = resolve_parameters(parameters, self._defaults)
        text = clean_text(payload, self._config.max_characters)
        input_ids, truncated = self._tokenizer.encode(text, should_truncate(parameters))
        return TextItem(input_ids, truncated, generation, parameters.get("clean_up_tokenization_spaces"))

    def batches(self, items: Sequence[TextItem]) -> list[list[int]]:
        return plan_batches(items, self._config.max_batch_tokens)

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
        end = time.monotonic() + GPU_WARM_UP_S
        for items in self._typical_batches():
            if not self._engine.captures_steps or time.monotonic() > end:
                break
            try:
                self.predict(items)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                logger.warning(
                    "the warm-up ends early: no memory for a batch of %d", len(items), exc_info=error
                )
                break

    def _typical_batches(self) -> Iterator[list[TextItem]]:
        """Yield batches of requests without parameters: 1, 2, 4, … texts of 32, 64, … tokens, and the largest sizes.

        They fit into a batch. `CudaGraphDecoder` captures steps at the first run of each size.
        """
        item = self.decode(EXAMPLE, {})
        for count in _doubling_sizes(1, self.batch_size):
            for length in _doubling_sizes(32, self._tokenizer.max_tokens):
                input_ids = (item.input_ids * length)[:length]
                items = [replace(item, input_ids=input_ids)] * count
                if len(self.batches(items)) == 1:
                    yield items

    def describe(self) -> dict[str, Any]:
        return self._engine.describe() | {
            "reason": self._reason,
            "max_input_tokens": self._tokenizer.max_tokens,
            "max_characters": self._config.max_characters,
            "prefix": self._tokenizer.prefix,
            "defaults": asdict(self._defaults),
        }


def _doubling_sizes(first: int, last: int) -> list[int]:
    """Return `first`, 2 * `first`, 4 * `first`, … below `last`, and `last`."""
    sizes = [last]
    while first < last:
        sizes.insert(-1, first)
        first *= 2
    return sizes
