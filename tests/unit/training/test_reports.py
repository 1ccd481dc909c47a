"""The grammar of the reports, and the starter summarizers that learned from it."""

import re
import string
from pathlib import Path

import pytest

from training.report_words import GENERAL_ASIDES, Topic
from training.reports import HELD_OUT_SEED, TOPICS, TRAINING_SEED, Report, draw, report, reports
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
    return [draw(HELD_OUT_SEED, index) for index in range(500)]


def test_a_seed_and_an_index_give_the_same_report_each_time():
    assert [report(5, index) for index in range(50)] == list(reports(5, 50))
    assert report(5, 0) == (draw(5, 0).text, draw(5, 0).summary)


def test_what_a_seed_draws_does_not_change():
    # The shipped weights learned this series: other words here mean that they have to be trained again.
    assert report(TRAINING_SEED, 0) == FIRST_OF_TRAINING


def test_seeds_and_indices_give_different_reports():
    drawn = [*reports(5, 300), *reports(6, 300)]
    assert len({text for text, _ in drawn}) == 600


def test_held_out_reports_and_summaries_are_new(held_out):
    seen = list(reports(TRAINING_SEED, 20_000))
    texts, summaries = {text for text, _ in seen}, {summary for _, summary in seen}
    assert not texts & {drawn.text for drawn in held_out}
    # Nor have the combinations of facts that the summaries tell, but for a rare coincidence.
    assert sum(drawn.summary in summaries for drawn in held_out) <= 0.01 * len(held_out)


def test_every_word_of_a_summary_stands_for_a_fact_of_the_text(held_out):
    for drawn in held_out:
        for name, fact in drawn.facts.items():
            assert contains(drawn.text, fact), (name, drawn)
            assert contains(drawn.summary, fact), (name, drawn)


def test_the_outcome_of_a_summary_is_said_in_the_text(held_out):
    for drawn in held_out:
        outcomes = topic_of(drawn).outcomes
        said = [
            outcome
            for outcome, sentences in outcomes.items()
            if any(sentence in drawn.text for sentence in sentences)
        ]
        assert len(said) == 1, drawn
        assert contains(drawn.summary, said[0]), drawn


def test_reports_have_four_to_nine_sentences_with_distractors(held_out):
    for drawn in held_out:
        sentences = re.findall(r"[^.]+\.", drawn.text)
        assert 4 <= len(sentences) <= 9
        assert 10 <= len(words(drawn.summary)) <= 30
        assert drawn.summary.count(".") == 1
        told = 2 + len(topic_of(drawn).details)
        assert len(sentences) > told


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
def test_templates_name_known_slots_and_every_fact_is_told(topic: Topic):
    facts = {"place", "day", "start", "number", "first", "last", *topic.slots}
    for group in (topic.leads, *topic.details):
        assert len(group) >= 3
        # Each template of a group tells the same facts, or a summary could not be written from the text.
        assert len({frozenset(slots(template)) for template in group}) == 1
    told = slots("".join(group[0] for group in (topic.leads, *topic.details)))
    assert slots(topic.summary) == told | {"outcome"} <= facts | {"outcome"}
    others = {"elsewhere", "another_day", "another_number", "month", "witness"}
    assert all(slots(aside) <= others for aside in (*topic.asides, *GENERAL_ASIDES))


def slots(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def test_scores():
    scores = score(["A fire in Ashby.", "Nothing"], ["A fire in Ashby.", "A flood in Kelso."])
    assert (scores.reports, scores.rouge_l, scores.exact) == (2, 0.5, 0.5)


@pytest.mark.parametrize("name", ["t5-small", "bart-large-cnn"])
@pytest.mark.full
def test_the_starter_weights_sum_up_held_out_reports(name: str):
    folder = MODELS / name / "starter"
    assert (folder / "model.safetensors").stat().st_size <= 4_000_000
    scores = evaluate(folder, 200)
    assert scores.rouge_l >= 0.85, scores
