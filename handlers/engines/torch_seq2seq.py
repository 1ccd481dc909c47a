"""Engine: sequence-to-sequence generation by transformers' `generate()` in PyTorch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSeq2SeqLM, GenerationConfig, StoppingCriteriaList

from handlers.core.device import Device
from handlers.core.progress import report_step
from handlers.engines.loading import load_network
from handlers.text.architectures import SEPARATE_TEXTS
from handlers.text.generation import GeneratedTokens, GenerationBatch, GenerationParameters
from handlers.text.model_defaults import generation_config

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
"""What the model's own generation config decides. Lengths and beams are the request's; sampling, and the modes that
would load code from elsewhere, stay off, so that a text always has the same answer."""


def _report_step(input_ids: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:
    """A stopping criterion that reports each decoding step, and stops nothing."""
    report_step()
    return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class TorchSeq2Seq:
    """Any architecture of `AutoModelForSeq2SeqLM`; weights from safetensors only, no code from the model's folder."""

    name = "torch"

    def load(self, folder: Path, device: Device) -> None:
        """Raises ValueError for weights that do not fill the architecture, and what transformers raises."""
        model = load_network(AutoModelForSeq2SeqLM, folder, device.dtype)
        own = generation_config(folder)
        self._pad = int(own.pad_token_id or 0)
        model.generation_config = GenerationConfig(
            **{name: getattr(own, name, None) for name in _MODEL_SETTINGS}
        )
        self._model: Any = model.to(device.torch_device)
        self._device = device.torch_device
        self._kind = model.config.model_type
        _size_cache(model.config)
        eos = own.eos_token_id
        self._ends = frozenset(eos if isinstance(eos, list) else [] if eos is None else [eos])

    def run(self, batch: GenerationBatch) -> GeneratedTokens:
        """`generate()` has one length for all its rows: texts with different ones run one after the other."""
        found: dict[int, list[int]] = {}
        for same in self._groups(batch):
            texts = [batch.texts[index] for index in same]
            found.update(zip(same, self._run(texts, batch.parameters[same[0]]), strict=True))
        return [found[index] for index in range(len(batch.texts))]

    def _groups(self, batch: GenerationBatch) -> list[list[int]]:
        """Indices of the texts of each call of `generate()`."""
        if self._kind in SEPARATE_TEXTS:
            return [[index] for index in range(len(batch.texts))]
        groups: dict[GenerationParameters, list[int]] = {}
        for index, parameters in enumerate(batch.parameters):
            groups.setdefault(parameters, []).append(index)
        return list(groups.values())

    def _run(self, texts: Sequence[Sequence[int]], parameters: GenerationParameters) -> GeneratedTokens:
        rows = [torch.tensor(text) for text in texts]
        masks = [torch.ones_like(row) for row in rows]
        inputs = {
            "input_ids": pad_sequence(rows, True, self._pad).to(self._device),
            "attention_mask": pad_sequence(masks, True).to(self._device),
        }
        with torch.inference_mode():
            generated = self._model.generate(
                **inputs,
                **self._particular(inputs["input_ids"]),
                generation_config=_settings(parameters),
                stopping_criteria=StoppingCriteriaList([_report_step]),
            )
        return [self._new_tokens(row) for row in generated.tolist()]

    def _particular(self, input_ids: torch.Tensor) -> dict[str, Any]:
        """What this architecture needs before or beside the usual inputs of `generate()`."""
        if self._kind == "led":
            # The documented use for summaries: global attention on the first token.
            mask = torch.zeros_like(input_ids)
            mask[:, 0] = 1
            return {"global_attention_mask": mask}
        if self._kind == "bigbird_pegasus":
            # A text too short for blocks switches the encoder to full attention, for all that follow.
            self._model.get_encoder().set_attention_type(self._model.config.attention_type)
            self._model.eval()
        return {}

    def describe(self) -> dict[str, Any]:
        return {"engine": self.name, "architecture": type(self._model).__name__}

    def _new_tokens(self, row: list[int]) -> list[int]:
        """Without the start token, which some models use as their end token too, and what fills up after the end."""
        tokens = row[1:]
        end = next((index for index, token in enumerate(tokens) if token in self._ends), len(tokens))
        return tokens[: end + 1]


def _size_cache(config: Any) -> None:
    """Let `generate()` make its cache for the decoder's layers; of T5 and ProphetNet it counts the encoder's."""
    for encoder in ("num_layers", "num_encoder_layers"):
        layers = getattr(config, "num_decoder_layers", None)
        if layers and getattr(config, encoder, layers) < layers:
            setattr(config, encoder, layers)


def _settings(parameters: GenerationParameters) -> GenerationConfig:
    beams: dict[str, Any] = {"num_beams": parameters.num_beams}
    if parameters.num_beams > 1:
        beams |= {"length_penalty": parameters.length_penalty, "early_stopping": parameters.early_stopping}
    return GenerationConfig(
        max_new_tokens=parameters.max_new_tokens,
        min_new_tokens=parameters.min_new_tokens,
        no_repeat_ngram_size=parameters.no_repeat_ngram_size,
        do_sample=False,
        **beams,
    )
