"""Draws short news reports with their one-sentence summaries from a grammar and a seed.

`python -m training.reports --seed 7` prints one.
"""

import argparse
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from training.report_affairs import AFFAIRS
from training.report_mishaps import MISHAPS
from training.report_words import DAYS, FIRST_NAMES, GENERAL_ASIDES, LAST_NAMES, MONTHS, PLACES, Topic

TOPICS = MISHAPS + AFFAIRS

TRAINING_SEED = 1
HELD_OUT_SEED = 2

_MOST_SENTENCES = 9


@dataclass(frozen=True)
class Report:
    """One drawn report: its text, its summary, and the words of the summary that stand in the text."""

    topic: str
    text: str
    summary: str
    facts: Mapping[str, str]


def report(seed: int, index: int) -> tuple[str, str]:
    """The text and the summary of report `index` of the endless series `seed`."""
    drawn = draw(seed, index)
    return drawn.text, drawn.summary


def reports(seed: int, count: int) -> Iterator[tuple[str, str]]:
    """The first `count` reports of the series `seed`."""
    return (report(seed, index) for index in range(count))


def draw(seed: int, index: int) -> Report:
    """Like `report`, with the topic and the facts."""
    # A string seed is hashed by `random` itself, so that neighboring indices share nothing.
    rng = random.Random(f"{seed}/{index}")
    topic = rng.choice(TOPICS)
    facts = _draw_facts(rng, topic)
    outcome = rng.choice(tuple(topic.outcomes))
    said = [rng.choice(templates).format_map(facts) for templates in topic.details]
    said.append(rng.choice(topic.outcomes[outcome]))
    rng.shuffle(said)
    # The lead comes before what refers to it; asides go anywhere, in front of the lead too.
    sentences = [rng.choice(topic.leads).format_map(facts), *said]
    for aside in _draw_asides(rng, topic, facts, len(sentences)):
        sentences.insert(rng.randint(0, len(sentences)), aside)
    return Report(
        topic=topic.name,
        text=" ".join(_capitalised(sentence) for sentence in sentences),
        summary=_capitalised(topic.summary.format_map({**facts, "outcome": outcome})),
        facts=MappingProxyType(
            {name: word for name, word in facts.items() if f"{{{name}}}" in topic.summary}
        ),
    )


def _draw_facts(rng: random.Random, topic: Topic) -> dict[str, str]:
    facts = {
        "place": rng.choice(PLACES),
        "day": rng.choice(DAYS),
        "start": rng.choice(MONTHS),
        "number": rng.choice(topic.numbers),
        "first": rng.choice(FIRST_NAMES),
        "last": rng.choice(LAST_NAMES),
    }
    for name, words in topic.slots.items():
        facts[name] = _choice_but(rng, words, facts["place"])
    return facts


def _draw_asides(rng: random.Random, topic: Topic, facts: Mapping[str, str], told: int) -> list[str]:
    """One to five sentences that do not matter, whose places, numbers and days are not the facts."""
    count = rng.choices((1, 2, 3, 4, 5), weights=(2, 3, 3, 2, 1))[0]
    count = min(count, _MOST_SENTENCES - told)
    own = rng.sample(topic.asides, k=min(count, rng.randint(0, 2)))
    chosen = own + rng.sample(GENERAL_ASIDES, k=count - len(own))
    taken = set(facts.values())
    return [
        template.format(
            elsewhere=_choice_but(rng, PLACES, *taken),
            another_day=_choice_but(rng, DAYS, *taken),
            another_number=_choice_but(rng, topic.numbers, *taken),
            month=_choice_but(rng, MONTHS, *taken),
            witness=f"{_choice_but(rng, FIRST_NAMES, *taken)} {_choice_but(rng, LAST_NAMES, *taken)}",
        )
        for template in chosen
    ]


def _choice_but(rng: random.Random, words: tuple[str, ...], *taken: str) -> str:
    return rng.choice([word for word in words if word not in taken])


def _capitalised(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def main() -> None:
    """Prints one report and its summary."""
    parser = argparse.ArgumentParser(prog="python -m training.reports", description=__doc__)
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED, help="which series of reports")
    parser.add_argument("--index", type=int, default=0, help="which report of the series")
    options = parser.parse_args()
    text, summary = report(options.seed, options.index)
    print(f"{text}\n\n{summary}")


if __name__ == "__main__":
    main()
