"""The output of transformers for one text at a time, with which the parity tests compare."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer


class Reference:
    """A model whose `generate()` uses the summarization parameters of its config, as in transformers 4's pipeline."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)
        config = json.loads((folder / "config.json").read_text())
        task = ((config.get("task_specific_params") or {}).get("summarization")) or {}
        self._model.generation_config.update(**task)
        self._prefix = task.get("prefix", config.get("prefix")) or ""
        self._max_tokens = max_tokens
        self._known: dict[str, tuple[int, ...]] = {}

    def tokens(self, text: str, parameters: Mapping[str, Any]) -> tuple[int, ...]:
        """Return the new tokens up to the end token. `parameters` are those of `generate()`.

        Equal calls generate once.
        """
        key = json.dumps([text, dict(parameters)], sort_keys=True)
        if key not in self._known:
            self._known[key] = self._generate(text, parameters)
        return self._known[key]

    def _generate(self, text: str, parameters: Mapping[str, Any]) -> tuple[int, ...]:
        inputs = self._tokenizer(
            self._prefix + text, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        )
        inputs.pop("token_type_ids", None)
        with torch.inference_mode():
            row: list[int] = self._model.generate(**inputs, **parameters)[0].tolist()[1:]
        end = self._model.generation_config.eos_token_id
        return tuple(row[: row.index(end) + 1] if end in row else row)

    def text(self, tokens: tuple[int, ...]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text
