"""Summaries behind LitServe, after its guide to speed: batches of up to eight, as long as their longest summary."""

import os

import litserve as ls
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer


class SummarizerAPI(ls.LitAPI):
    def setup(self, device):
        self.tokenizer = AutoTokenizer.from_pretrained(os.environ["MODEL"])
        self.model = AutoModelForSeq2SeqLM.from_pretrained(os.environ["MODEL"], dtype=torch.float32)
        self.model.eval().to(device)

    def decode_request(self, request):
        return request["text"], request["parameters"]

    def batch(self, requests):
        texts, parameters = zip(*requests, strict=True)
        inputs = self.tokenizer(list(texts), return_tensors="pt", truncation=True, padding=True)
        return inputs.to(self.model.device), parameters

    def predict(self, batch):
        inputs, parameters = batch
        lengths = [each["max_new_tokens"] for each in parameters]
        same = {**parameters[0], "min_new_tokens": max(lengths), "max_new_tokens": max(lengths)}
        with torch.inference_mode():
            rows = self.model.generate(**inputs, **same)
        return [row[: 1 + length] for row, length in zip(rows, lengths, strict=True)]

    def unbatch(self, rows):
        return list(rows)

    def encode_response(self, row):
        return {"summary_text": self.tokenizer.decode(row, skip_special_tokens=True)}


if __name__ == "__main__":
    api = SummarizerAPI(max_batch_size=8, batch_timeout=0.01)
    server = ls.LitServer(api, accelerator="auto", workers_per_device=1, timeout=False)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False)
