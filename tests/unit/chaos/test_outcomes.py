"""Tests of the classification of replies."""

import pytest

from tests.chaos.outcomes import Category, Reply, classify, reply_of
from torchserve_models import client

DIED = Reply(500, "Worker died.")


@pytest.mark.parametrize(
    ("reply", "matches", "category"),
    [
        (Reply(200), True, "right"),
        (Reply(200), False, "wrong"),
        (Reply(429), False, "refused"),
        (Reply(503, "no worker", retry_after=1.0), False, "refused"),
        (Reply(503, "Prediction failed"), False, "lost"),
        (Reply(failure="unsent"), False, "refused"),
        (Reply(failure="broken"), False, "lost"),
        (Reply(failure="timeout"), False, "lost"),
        (DIED, False, "lost"),
        (Reply(507, "Worker died."), False, "lost"),
        (Reply(500, "InternalError"), False, "lost"),
        (Reply(502), False, "lost"),
        (Reply(504), False, "lost"),
        (Reply(408), False, "lost"),
        (Reply(400, "not an image"), False, "wrong"),
        (Reply(404, "no such model"), False, "wrong"),
    ],
)
def test_reply_to_good_request_is_classified(reply, matches, category):
    assert classify("good", reply, matches) == category


@pytest.mark.parametrize("kind", ["bad", "hostile"])
@pytest.mark.parametrize(
    ("reply", "may_close", "category"),
    [
        (Reply(400), False, "right"),
        (Reply(405), False, "right"),
        (Reply(413), False, "right"),
        (Reply(200), False, "wrong"),
        (Reply(500, "InternalError"), False, "wrong"),
        (Reply(503, "Prediction failed"), False, "wrong"),
        (Reply(503, "no worker"), False, "refused"),
        (Reply(429), False, "refused"),
        (DIED, False, "lost"),
        (Reply(502), False, "lost"),
        (Reply(failure="broken"), False, "lost"),
        (Reply(failure="broken"), True, "right"),
        (Reply(failure="timeout"), True, "lost"),
        (Reply(failure="unsent"), True, "refused"),
    ],
)
def test_reply_to_bad_request_is_classified(kind, reply, may_close, category):
    assert classify(kind, reply, may_close=may_close) == category


@pytest.mark.parametrize(
    ("error", "good"),
    [
        (client.Overloaded("full"), Category.REFUSED),
        (client.Unavailable("no server", sent=False), Category.REFUSED),
        (client.Unavailable("it broke"), Category.LOST),
        (client.Timeout("no answer within 30 s"), Category.LOST),
        (client.Timeout("HTTP 504", code=504), Category.LOST),
        (client.WorkerDied("Worker died."), Category.LOST),
        (client.InternalError("failed"), Category.LOST),
        (client.OutOfMemory("no memory"), Category.LOST),
        (client.InvalidImage("not an image"), Category.WRONG),
        (client.ModelNotFound("no model"), Category.WRONG),
        (client.UnexpectedAnswer("not JSON"), Category.WRONG),
    ],
)
def test_client_error_is_classified(error, good):
    assert classify("good", reply_of(error)) == good


def test_label_distinguishes_dead_workers_from_other_errors():
    assert DIED.label == "500 Worker died"
    assert Reply(500, "x").label == "500"
    assert Reply(failure="broken").label == "broken"
