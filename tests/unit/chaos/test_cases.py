"""Tests of chaos requests and of parsing answers in all forms."""

import json

import pytest

from tests.chaos.abuse import brackets
from tests.chaos.cases import (
    SCORE_TOLERANCE,
    Answer,
    GoodCase,
    bad_calls,
    bad_requests,
    read_answer,
    request_of,
)

IMAGE = GoodCase("resnet-50/0", "resnet-50", "image", b"\xff\xd8", Answer("cat", 0.9))
TEXT = GoodCase("t5-small/0", "t5-small", "text", b"a report", Answer("short"), "t5")


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ([{"label": "cat", "score": 0.9}, {"label": "dog", "score": 0.1}], Answer("cat", 0.9)),
        ([{"summary_text": "short", "truncated": False}], Answer("short")),
        ({"label": "cat", "score": 0.9}, Answer("cat", 0.9)),
        (
            {"outputs": [{"name": "label", "data": ["cat", "dog"]}, {"name": "score", "data": [0.9, 0.1]}]},
            Answer("cat", 0.9),
        ),
        ({"outputs": [{"name": "summary_text", "data": ["short"]}]}, Answer("short")),
        ([], None),
        ({"error": "no"}, None),
    ],
)
def test_answer_is_parsed_in_every_form(body, answer):
    assert read_answer(json.dumps(body).encode()) == answer


def test_invalid_json_is_parsed_as_none():
    assert read_answer(b"<html>") is None


def test_answers_match_within_the_tolerance():
    assert Answer("cat", 0.9).matches(Answer("cat", 0.9 + SCORE_TOLERANCE / 2))
    assert not Answer("cat", 0.9).matches(Answer("cat", 0.9 + 2 * SCORE_TOLERANCE))
    assert not Answer("cat", 0.9).matches(Answer("dog", 0.9))
    assert not Answer("cat", 0.9).matches(None)


def test_request_has_the_format_of_its_form():
    assert request_of(IMAGE, "native").body == IMAGE.content
    assert json.loads(request_of(TEXT, "json").body) == {"inputs": "a report"}
    (tensor,) = json.loads(request_of(IMAGE, "open-inference").body)["inputs"]
    assert (tensor["name"], tensor["datatype"]) == ("image", "BYTES")
    assert request_of(TEXT, "known-route").path == "/predict/text_summarize?model=t5"
    assert b'name="image"' in request_of(IMAGE, "known-route").body


def test_bad_requests_are_distinct_and_gateway_routes_require_the_gateway():
    with_front, without = bad_requests([IMAGE, TEXT], True), bad_requests([IMAGE, TEXT], False)
    names = [request.name for request in with_front]
    assert len(set(names)) == len(names)
    assert {"/model"} == {r.path for r in with_front} - {r.path for r in without} - {
        "/predict/text_summarize?model=t5"
    }
    assert {call.model for call in bad_calls([IMAGE, TEXT])} == {"resnet-50", "t5-small", "no-such-model"}


def test_brackets_are_valid_json_of_the_requested_size():
    data = brackets(30_000)
    assert 29_000 < len(data) <= 30_000
    assert set(map(str, json.loads(data)["inputs"])) == {"[]"}
