"""Load of a text workload, with a fake load generator."""

from collections import Counter
from functools import partial
from pathlib import Path

from benchmarks.scenarios.base import TextScenario
from benchmarks.scenarios.text_models import BART_LARGE
from benchmarks.systems.base import MIN_REQUESTS, TextLoad
from benchmarks.systems.product import build_rest_request
from torchserve_models.loadgen import Measurement

SCENARIO = TextScenario(BART_LARGE, Path())


class FakeGenerator:
    """A fake load generator that answers one request per second."""

    def __init__(self):
        self.calls = []

    def drained_loop(self, target, connections, seconds, min_requests=1):
        self.calls.append((max(target.tokens), connections, min_requests))
        return Measurement(float(connections), connections, tokens=connections * target.tokens[0])


def test_load_reports_the_effect_of_drafts():
    counts = [{}, {"handler_generated_tokens_total": 32}]
    drafts = {"handler_draft_tokens_total": 30, "handler_accepted_draft_tokens_total": 16}
    counters = map(Counter, [*counts, *counts[1:], {"handler_generated_tokens_total": 64, **drafts}])
    generator = FakeGenerator()
    targets = SCENARIO.targets(partial(build_rest_request, "bart-large-cnn"), 1, "b")
    load = TextLoad(*targets, generator, read_counters=lambda: next(counters))
    load.warm_up(32, 1.0)
    load.closed(1, 6.0)
    load.closed(8, 6.0)
    # first short answers, as many as a batch holds
    assert generator.calls == [(8, 8, 1), (142, 1, MIN_REQUESTS), (142, 8, MIN_REQUESTS)]
    assert load.facts["drafts"] == {"1": {}, "8": {"tokens_per_step": 2.0, "accepted": 16 / 30}}


def test_answer_is_correct_with_as_many_words_as_tokens():
    target, _ = SCENARIO.targets(partial(build_rest_request, "m"), 1, "a")
    assert target.tokens == target.count == (32,) * 40
    for words, problem in ((32, None), (30, None), (29, "wrong answer"), (33, "wrong answer")):
        assert target.find_problem(0, b"word " * words) == problem
