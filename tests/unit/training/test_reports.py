"""Tests of the drawn reports, and of the starter summarizers that were trained on them."""

import re
import string
from pathlib import Path

import pytest

from training.report_words import GENERAL_ASIDES, Topic
from training.reports import (
    HELD_OUT_SEED,
    TOPICS,
    TRAINING_SEED,
    Report,
    draw_example,
    draw_examples,
    draw_report,
)
from training.summary_scores import evaluate, score

MODELS = Path(__file__).resolve().parents[3] / "models"

FIRST_OF_TRAINING = (
    "A blind fish was discovered near Selby by a team under Elena Cole. Laura Jones wrote a book about Ripon in "
    "February. A talk by Karim Lewis takes place on Friday. The search took 19 weeks. The public may not go "
    "near it. Students from Clifton helped until January.",
    "The scientist Elena Cole found a blind fish near Selby after 19 weeks and the site was closed.",
)


def topic_of(drawn: Report) -> Topic:
    return next(topic for topic in TOPICS if topic.name == drawn.topic)


def words(text: str) -> list[str]:
    return re.findall(r"[\w-]+", text.lower())


def contains(text: str, phrase: str) -> bool:
    return f" {' '.join(words(phrase))} " in f" {' '.join(words(text))} "


@pytest.fixture(scope="module")
def held_out() -> list[Report]:
    return [draw_report(HELD_OUT_SEED, index) for index in range(500)]


def test_draw_examples_yields_the_reports_of_draw_example():
    assert [draw_example(5, index) for index in range(50)] == list(draw_examples(5, 50))
    assert draw_example(5, 0) == (draw_report(5, 0).text, draw_report(5, 0).summary)


def test_report_of_a_seed_has_the_recorded_text():
    # The starter weights were trained on this series. If its words change, train them again.
    assert draw_example(TRAINING_SEED, 0) == FIRST_OF_TRAINING


def test_reports_of_other_seeds_and_indices_differ():
    drawn = [*draw_examples(5, 300), *draw_examples(6, 300)]
    assert len({text for text, _ in drawn}) == 600


@pytest.mark.full
def test_held_out_reports_and_summaries_are_new(held_out):
    training_reports = list(draw_examples(TRAINING_SEED, 20_000))
    texts, summaries = {text for text, _ in training_reports}, {summary for _, summary in training_reports}
    assert not texts & {drawn.text for drawn in held_out}
    # The combinations of facts in the summaries are new as well, except for rare coincidences.
    assert sum(drawn.summary in summaries for drawn in held_out) <= 0.01 * len(held_out)


def test_summary_words_are_facts_of_the_text(held_out):
    for drawn in held_out:
        for name, fact in drawn.facts.items():
            assert contains(drawn.text, fact), (name, drawn)
            assert contains(drawn.summary, fact), (name, drawn)


def test_text_contains_outcome_of_summary(held_out):
    for drawn in held_out:
        outcomes = topic_of(drawn).outcomes
        outcomes_in_text = [
            outcome
            for outcome, sentences in outcomes.items()
            if any(sentence in drawn.text for sentence in sentences)
        ]
        assert len(outcomes_in_text) == 1, drawn
        assert contains(drawn.summary, outcomes_in_text[0]), drawn


def test_reports_have_four_to_nine_sentences_with_distractors(held_out):
    for drawn in held_out:
        sentences = re.findall(r"[^.]+\.", drawn.text)
        assert 4 <= len(sentences) <= 9
        assert 10 <= len(words(drawn.summary)) <= 30
        assert drawn.summary.count(".") == 1
        num_required = 2 + len(topic_of(drawn).details)
        assert len(sentences) > num_required


def test_distractors_name_other_places_and_days(held_out):
    for drawn in held_out:
        for name in ("place", "day"):
            if name in drawn.facts:
                assert words(drawn.text).count(drawn.facts[name].lower()) == 1, drawn


def test_every_topic_is_drawn_with_every_outcome(held_out):
    for topic in TOPICS:
        about = [drawn for drawn in held_out if drawn.topic == topic.name]
        assert len(about) > 30
        for outcome in topic.outcomes:
            assert any(contains(drawn.summary, outcome) for drawn in about), (topic.name, outcome)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_templates_name_known_slots_and_every_fact(topic: Topic):
    facts = {"place", "day", "start", "number", "first", "last", *topic.slots}
    for group in (topic.leads, *topic.details):
        assert len(group) >= 3
        # Each template of a group contains the same facts, so that the summary follows from the text.
        assert len({frozenset(slots(template)) for template in group}) == 1
    stated = slots("".join(group[0] for group in (topic.leads, *topic.details)))
    assert slots(topic.summary) == stated | {"outcome"} <= facts | {"outcome"}
    others = {"elsewhere", "another_day", "another_number", "month", "witness"}
    assert all(slots(aside) <= others for aside in (*topic.asides, *GENERAL_ASIDES))


def slots(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def test_scores_are_rouge_l_and_exact_matches():
    scores = score(["A fire in Ashby.", "Nothing"], ["A fire in Ashby.", "A flood in Kelso."])
    assert (scores.reports, scores.rouge_l, scores.exact) == (2, 0.5, 0.5)


@pytest.mark.parametrize("name", ["t5-small", "bart-large-cnn"])
@pytest.mark.full
def test_starter_weights_summarize_held_out_reports(name: str):
    folder = MODELS / name / "starter"
    assert (folder / "model.safetensors").stat().st_size <= 4_000_000
    scores = evaluate(folder, 60)
    assert scores.rouge_l >= 0.85, scores
