"""Train and evaluate the starter summarizers, a small T5 and a small BART, on drawn reports.

The T5 weights in the repository were trained with `python -m training.summarizer --architecture t5
--out models/t5-small/starter --threads 1`. Another number of threads gives slightly different weights.
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from training.card import machine, write_card
from training.reports import HELD_OUT_SEED, TRAINING_SEED, draw_example
from training.small_models import NETWORKS, TOKENIZERS, prefix_of, save
from training.summary_scores import Scores, evaluate

_IGNORED = -100


@dataclass(frozen=True)
class Plan:
    """Training settings. The learning rate rises over `warmup` steps, then falls to 0 along a half cosine."""

    steps: int
    seed: int = TRAINING_SEED
    batch: int = 32
    rate: float = 2e-3
    warmup: int = 300
    decay: float = 0.01
    # Number of batches that are drawn at once and sorted by length, to reduce padding.
    bucket: int = 16


PLANS = {"t5": Plan(steps=6_000), "bart": Plan(steps=3_000, rate=1e-3)}
NAMES = {
    "t5": ("t5-small", "T5ForConditionalGeneration"),
    "bart": ("bart-large-cnn", "BartForConditionalGeneration"),
}


def train(architecture: str, plan: Plan, device: torch.device) -> tuple[Any, Any]:
    """Train a model. Return it on the CPU in fp32, and its tokenizer."""
    started = time.monotonic()
    tokenizer = TOKENIZERS[architecture]()
    torch.manual_seed(plan.seed)
    model = NETWORKS[architecture](tokenizer).to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=plan.rate, betas=(0.9, 0.98), weight_decay=plan.decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, plan))
    for step, batch in enumerate(_batches(tokenizer, prefix_of(model.config), plan), start=1):
        inputs = {name: value.to(device) for name, value in batch.items()}
        loss = model(**inputs, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == plan.steps:
            spent = time.monotonic() - started
            print(f"step {step}/{plan.steps} loss {loss.item():.4f} after {spent:.0f} s", flush=True)
    return model.to("cpu").eval(), tokenizer


def _rate(step: int, plan: Plan) -> float:
    if step < plan.warmup:
        return (step + 1) / plan.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - plan.warmup) / max(1, plan.steps - plan.warmup)))


def _batches(tokenizer: Any, prefix: str, plan: Plan) -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches of reports, each report once."""
    order = torch.Generator().manual_seed(plan.seed)
    index = 0
    for step in range(plan.steps):
        if step % plan.bucket == 0:
            drawn = [draw_example(plan.seed, index + offset) for offset in range(plan.batch * plan.bucket)]
            index += len(drawn)
            texts = tokenizer([prefix + text for text, _ in drawn])["input_ids"]
            summaries = tokenizer([summary for _, summary in drawn])["input_ids"]
            pairs = sorted(zip(texts, summaries, strict=True), key=lambda pair: len(pair[0]))
            turns = torch.randperm(plan.bucket, generator=order).tolist()
        start = turns[step % plan.bucket] * plan.batch
        yield _padded(pairs[start : start + plan.batch], tokenizer.pad_token_id)


def _padded(pairs: list[tuple[list[int], list[int]]], padding: int) -> dict[str, torch.Tensor]:
    texts, summaries = ([torch.tensor(ids) for ids in column] for column in zip(*pairs, strict=True))
    input_ids = pad_sequence(texts, batch_first=True, padding_value=padding)
    return {
        "input_ids": input_ids,
        "attention_mask": (input_ids != padding).long(),
        "labels": pad_sequence(summaries, batch_first=True, padding_value=_IGNORED),
    }


def describe(folder: Path, architecture: str, plan: Plan, seconds: float, where: str, scores: Scores) -> None:
    """Write the model card of a trained summarizer."""
    name, kind = NAMES[architecture]
    write_card(
        folder,
        title=f"Starter weights of {name}",
        task="summarization",
        description=(
            f"A `{kind}` with two encoder and two decoder layers of width 128 and a separate tokenizer, so that "
            "the server and its tests work without a network. It summarizes reports like those of "
            "`python -m training.reports` in one sentence. Use the pretrained weights for other texts."
        ),
        data=(
            f"{plan.steps * plan.batch:,} reports drawn by `training/reports.py` from the seed, each used "
            "once: four to nine sentences from eight fields of news, with facts in varied words and order, "
            "among sentences with other places, people, days and numbers. Held-out reports come from "
            f"another seed, {HELD_OUT_SEED}; their summaries are generated by `generate()` with the settings of "
            "`generation_config.json`."
        ),
        seed=plan.seed,
        steps=plan.steps,
        seconds=seconds,
        machine=where,
        scores={
            f"ROUGE-L (F1) on {scores.reports} reports": scores.rouge_l,
            f"exact match on {scores.reports} reports": scores.exact,
        },
        command=(
            f"python -m training.summarizer --architecture {architecture} --out models/{name}/starter"
            f" --threads {torch.get_num_threads()}"
        ),
        extra=(
            "The minutes are processor time, summed over threads.",
            "Weights are stored as fp16; `config.json` specifies fp32.",
        ),
    )


def main() -> None:
    """Train the starter weights, or evaluate existing weights."""
    parser = argparse.ArgumentParser(prog="python -m training.summarizer", description=main.__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, help="train, and write the model into this folder")
    what.add_argument("--evaluate", type=Path, help="evaluate the model in this folder")
    parser.add_argument("--architecture", choices=sorted(PLANS), help="architecture to train")
    parser.add_argument("--reports", type=int, default=200, help="number of held-out reports to evaluate")
    parser.add_argument("--threads", type=int, help="CPU threads to use")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.evaluate:
        print(evaluate(arguments.evaluate, arguments.reports))
        return
    if not arguments.architecture:
        parser.error("--out requires --architecture")
    # CPU time, summed over threads: it does not depend on other load of the machine.
    started = time.process_time()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plan = PLANS[arguments.architecture]
    save(*train(arguments.architecture, plan, device), arguments.out)
    seconds = time.process_time() - started
    scores = evaluate(arguments.out, arguments.reports)
    print(scores)
    describe(arguments.out, arguments.architecture, plan, seconds, machine(device.type), scores)


if __name__ == "__main__":
    main()
