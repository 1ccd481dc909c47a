"""Evaluate a summarizer on held-out reports by ROUGE-L and exact match."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from training.reports import HELD_OUT_SEED, draw_examples
from training.small_models import prefix_of


@dataclass(frozen=True)
class Scores:
    """Means over `reports` summaries: F1 of ROUGE-L, and the share of exact matches."""

    reports: int
    rouge_l: float
    exact: float

    def __str__(self) -> str:
        return f"ROUGE-L {self.rouge_l:.4f}, exact match {self.exact:.4f} on {self.reports} held-out reports"


def evaluate(folder: Path, count: int, seed: int = HELD_OUT_SEED) -> Scores:
    """Return the scores of the model in `folder` on the first `count` reports of a seed."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    texts, references = zip(*draw_examples(seed, count), strict=True)
    return score(summarize(model, tokenizer, texts), references)


def summarize(model: Any, tokenizer: Any, texts: Sequence[str], batch: int = 20) -> list[str]:
    """Return a summary of each text, with the model's prefix and generation config."""
    prefix = prefix_of(model.config)
    summaries: list[str] = []
    for start in range(0, len(texts), batch):
        inputs = tokenizer(
            [prefix + text for text in texts[start : start + batch]],
            padding=True,
            truncation=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            tokens = model.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        summaries += tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return summaries


def score(summaries: Sequence[str], references: Sequence[str]) -> Scores:
    """Score summaries by the references of the grammar."""
    scorer = RougeScorer(["rougeL"])
    pairs = list(zip(summaries, references, strict=True))
    return Scores(
        reports=len(pairs),
        rouge_l=sum(scorer.score(reference, summary)["rougeL"].fmeasure for summary, reference in pairs)
        / len(pairs),
        exact=sum(summary == reference for summary, reference in pairs) / len(pairs),
    )
