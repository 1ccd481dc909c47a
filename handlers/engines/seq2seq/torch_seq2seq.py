"""The engine `torch`: generation with transformers' `generate()`, for every supported architecture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSeq2SeqLM, GenerationConfig, StoppingCriteriaList

from handlers.core.device import Device
from handlers.core.step_reporting import report_step
from handlers.engines.loading import load_network
from handlers.engines.seq2seq.generation_config import read_generation_config
from handlers.engines.seq2seq.generation_types import GeneratedTokens, GenerationBatch, GenerationParameters

SEPARATE_TEXTS = frozenset({"bigbird_pegasus", "nllb-moe"})
"""Model types whose output for a text depends on its padding or its batch. Their texts run one at a time."""

_MODEL_SETTINGS = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "suppress_tokens",
    "begin_suppress_tokens",
    "bad_words_ids",
    "sequence_bias",
    "repetition_penalty",
    "encoder_repetition_penalty",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "remove_invalid_values",
    "renormalize_logits",
)
"""The settings that are taken from the model's generation config.

The request sets lengths and beams. Sampling and decoding modes that load external code are off, so that a text always
has the same output.
"""


def _report_step(input_ids: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:
    """Report a decoding step. This is a stopping criterion that never stops generation."""
    report_step()
    return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class TorchSeq2Seq:
    """The engine for any architecture of `AutoModelForSeq2SeqLM`."""

    name = "torch"
    captures_steps = False

    def load(self, folder: Path, device: Device) -> None:
        """Load the weights.

        Raises:
            ValueError: The weights do not fit the architecture.
            OSError: A file of the model is missing or unreadable.
        """
        model = load_network(AutoModelForSeq2SeqLM, folder, device.dtype)
        config = read_generation_config(folder)
        self._pad_token_id = int(config.pad_token_id or 0)
        model.generation_config = GenerationConfig(
            **{name: getattr(config, name, None) for name in _MODEL_SETTINGS}
        )
        self._model: Any = model.to(device.torch_device)
        self._device = device.torch_device
        self._model_type = model.config.model_type
        _size_cache(model.config)
        eos = config.eos_token_id
        self._eos_token_ids = frozenset(eos if isinstance(eos, list) else [] if eos is None else [eos])

    def run(self, batch: GenerationBatch) -> GeneratedTokens:
        """Return the new tokens of each text.

        `generate()` has one length for all rows, so texts with different length parameters are generated separately.
        """
        generated: dict[int, list[int]] = {}
        for indices in self._groups(batch):
            texts = [batch.texts[index] for index in indices]
            generated.update(zip(indices, self._generate(texts, batch.parameters[indices[0]]), strict=True))
        return [generated[index] for index in range(len(batch.texts))]

    def describe(self) -> dict[str, Any]:
        """Return the engine and the architecture."""
        return {"engine": self.name, "architecture": type(self._model).__name__}

    def _groups(self, batch: GenerationBatch) -> list[list[int]]:
        """Return the indices of the texts of each call of `generate()`."""
        if self._model_type in SEPARATE_TEXTS:
            return [[index] for index in range(len(batch.texts))]
        groups: dict[GenerationParameters, list[int]] = {}
        for index, parameters in enumerate(batch.parameters):
            groups.setdefault(parameters, []).append(index)
        return list(groups.values())

    def _generate(self, texts: Sequence[Sequence[int]], parameters: GenerationParameters) -> GeneratedTokens:
        rows = [torch.tensor(text) for text in texts]
        masks = [torch.ones_like(row) for row in rows]
        inputs = {
            "input_ids": pad_sequence(rows, True, self._pad_token_id).to(self._device),
            "attention_mask": pad_sequence(masks, True).to(self._device),
        }
        with torch.inference_mode():
            sequences = self._model.generate(
                **inputs,
                **self._architecture_inputs(inputs["input_ids"]),
                generation_config=_request_config(parameters),
                stopping_criteria=StoppingCriteriaList([_report_step]),
            )
        return [self._new_tokens(row) for row in sequences.tolist()]

    def _architecture_inputs(self, input_ids: torch.Tensor) -> dict[str, Any]:
        """Prepare the model, and return the additional inputs of `generate()` for its architecture."""
        if self._model_type == "led":
            # The documentation of LED recommends global attention on the first token for summaries.
            mask = torch.zeros_like(input_ids)
            mask[:, 0] = 1
            return {"global_attention_mask": mask}
        if self._model_type == "bigbird_pegasus":
            # A text that is too short for blocks switches the encoder to full attention for all later texts.
            self._model.get_encoder().set_attention_type(self._model.config.attention_type)
            self._model.eval()
        return {}

    def _new_tokens(self, row: list[int]) -> list[int]:
        """Return a row without its start token and without the padding after the end token.

        Some models start with their end token.
        """
        tokens = row[1:]
        end = next((index for index, token in enumerate(tokens) if token in self._eos_token_ids), len(tokens))
        return tokens[: end + 1]


def _size_cache(config: Any) -> None:
    """Let `generate()` create a cache for all layers of the decoder.

    For T5 and ProphetNet, `generate()` uses the number of encoder layers, which may be smaller.
    """
    for encoder in ("num_layers", "num_encoder_layers"):
        layers = getattr(config, "num_decoder_layers", None)
        if layers and getattr(config, encoder, layers) < layers:
            setattr(config, encoder, layers)


def _request_config(parameters: GenerationParameters) -> GenerationConfig:
    beam_settings: dict[str, Any] = {"num_beams": parameters.num_beams}
    if parameters.num_beams > 1:
        beam_settings |= {
            "length_penalty": parameters.length_penalty,
            "early_stopping": parameters.early_stopping,
        }
    return GenerationConfig(
        max_new_tokens=parameters.max_new_tokens,
        min_new_tokens=parameters.min_new_tokens,
        no_repeat_ngram_size=parameters.no_repeat_ngram_size,
        do_sample=False,
        **beam_settings,
    )
