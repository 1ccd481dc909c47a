"""Helper functions that create records and probe samples for tests."""

from tests.chaos.outcomes import Category, Record
from tests.chaos.probes import ProbeSample


def record(started, ended, category="right", model="m", kind="good", label="200", message=""):
    return Record(started, ended, kind, f"{model}/0", model, "rest", Category(category), label, message)


def steady(start, end, model="m", every=0.25, took=0.2):
    """Return records of successive right answers."""
    count = int((end - start) / every)
    return [record(start + n * every, start + n * every + took, model=model) for n in range(count)]


def probed(start, end, ready, every=0.1):
    count = round((end - start) / every)
    return [ProbeSample(start + n * every, 1.0, 200 if ready else 503) for n in range(count)]
