"""Draw short news reports with one-sentence summaries from a grammar and a seed.

`python -m training.reports --seed 7` prints a report and its summary.
"""

import argparse
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from training.report_affairs import AFFAIRS
from training.report_mishaps import MISHAPS
from training.report_words import DAYS, FIRST_NAMES, GENERAL_ASIDES, LAST_NAMES, MONTHS, TOWNS, Topic

TOPICS = MISHAPS + AFFAIRS

TRAINING_SEED = 1
HELD_OUT_SEED = 2

_MAX_SENTENCES = 9


@dataclass(frozen=True)
class Report:
    """A drawn report with its summary. `facts` are the words of the summary that the text contains, by slot."""

    topic: str
    text: str
    summary: str
    facts: Mapping[str, str]


def draw_example(seed: int, index: int) -> tuple[str, str]:
    """Return the text and summary of report `index` in the endless series of a seed."""
    drawn = draw_report(seed, index)
    return drawn.text, drawn.summary


def draw_examples(seed: int, count: int) -> Iterator[tuple[str, str]]:
    """Yield the texts and summaries of the first `count` reports of a seed."""
    return (draw_example(seed, index) for index in range(count))


def draw_report(seed: int, index: int) -> Report:
    """Return report `index` in the endless series of a seed."""
    # `random` hashes a string, so that neighboring indices are independent.
    rng = random.Random(f"{seed}/{index}")
    topic = rng.choice(TOPICS)
    facts = _draw_facts(rng, topic)
    outcome = rng.choice(tuple(topic.outcomes))
    body = [rng.choice(templates).format_map(facts) for templates in topic.details]
    body.append(rng.choice(topic.outcomes[outcome]))
    rng.shuffle(body)
    # The lead precedes the sentences that refer to it. Asides may be anywhere, even before the lead.
    sentences = [rng.choice(topic.leads).format_map(facts), *body]
    for aside in _draw_asides(rng, topic, facts, len(sentences)):
        sentences.insert(rng.randint(0, len(sentences)), aside)
    return Report(
        topic=topic.name,
        text=" ".join(_capitalize(sentence) for sentence in sentences),
        summary=_capitalize(topic.summary.format_map({**facts, "outcome": outcome})),
        facts=MappingProxyType(
            {name: word for name, word in facts.items() if f"{{{name}}}" in topic.summary}
        ),
    )


def _draw_facts(rng: random.Random, topic: Topic) -> dict[str, str]:
    facts = {
        "place": rng.choice(TOWNS),
        "day": rng.choice(DAYS),
        "start": rng.choice(MONTHS),
        "number": rng.choice(topic.numbers),
        "first": rng.choice(FIRST_NAMES),
        "last": rng.choice(LAST_NAMES),
    }
    for name, words in topic.slots.items():
        facts[name] = _choose_other(rng, words, facts["place"])
    return facts


def _draw_asides(rng: random.Random, topic: Topic, facts: Mapping[str, str], num_sentences: int) -> list[str]:
    """Return one to five irrelevant sentences, with other places, numbers and days than the facts."""
    count = rng.choices((1, 2, 3, 4, 5), weights=(2, 3, 3, 2, 1))[0]
    count = min(count, _MAX_SENTENCES - num_sentences)
    topic_asides = rng.sample(topic.asides, k=min(count, rng.randint(0, 2)))
    chosen = topic_asides + rng.sample(GENERAL_ASIDES, k=count - len(topic_asides))
    taken = set(facts.values())
    return [
        template.format(
            elsewhere=_choose_other(rng, TOWNS, *taken),
            another_day=_choose_other(rng, DAYS, *taken),
            another_number=_choose_other(rng, topic.numbers, *taken),
            month=_choose_other(rng, MONTHS, *taken),
            witness=f"{_choose_other(rng, FIRST_NAMES, *taken)} {_choose_other(rng, LAST_NAMES, *taken)}",
        )
        for template in chosen
    ]


def _choose_other(rng: random.Random, words: tuple[str, ...], *taken: str) -> str:
    return rng.choice([word for word in words if word not in taken])


def _capitalize(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def main() -> None:
    """Print one report and its summary."""
    parser = argparse.ArgumentParser(prog="python -m training.reports", description=__doc__)
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED, help="which series of reports")
    parser.add_argument("--index", type=int, default=0, help="which report of the series")
    options = parser.parse_args()
    text, summary = draw_example(options.seed, options.index)
    print(f"{text}\n\n{summary}")


if __name__ == "__main__":
    main()
