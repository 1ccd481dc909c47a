"""Summaries as a custom runtime of MLServer, which hands it batches; each is as long as its longest summary."""

import json
import os

import torch
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer


class Summarizer(MLModel):
    async def load(self) -> bool:
        self.tokenizer = AutoTokenizer.from_pretrained(os.environ["MODEL"])
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = AutoModelForSeq2SeqLM.from_pretrained(os.environ["MODEL"], dtype=torch.float32)
        self.model.to(self.device).eval()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        columns = {each.name: self.decode(each, default_codec=StringCodec) for each in payload.inputs}
        parameters = [json.loads(each) for each in columns["parameters"]]
        lengths = [each["max_new_tokens"] for each in parameters]
        same = {**parameters[0], "min_new_tokens": max(lengths), "max_new_tokens": max(lengths)}
        inputs = self.tokenizer(columns["text"], return_tensors="pt", truncation=True, padding=True)
        with torch.no_grad():
            rows = self.model.generate(**inputs.to(self.device), **same)
        cut = [row[: 1 + length] for row, length in zip(rows, lengths, strict=True)]
        summaries = [self.tokenizer.decode(row, skip_special_tokens=True) for row in cut]
        return InferenceResponse(
            model_name=self.name, outputs=[StringCodec.encode_output("summary_text", summaries)]
        )
