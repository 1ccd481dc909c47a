"""Tests of the worker's log: level and request label of each line of a warning or error."""

import io
import logging
import sys

import pytest

from handlers.core import request_log
from handlers.core.request_log import log_context


@pytest.fixture
def output(monkeypatch):
    """Configure the root logger as TorchServe does in a worker, with the output in memory."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [handler])
    monkeypatch.setattr(root, "level", logging.INFO)
    request_log.install()
    request_log.install()
    return stream


def test_each_line_of_a_traceback_has_level_and_request(output):
    with log_context("request abc, REST"):
        try:
            raise ValueError("wrong\nweights")
        except ValueError:
            logging.getLogger("worker").exception("unexpected error")
    lines = output.getvalue().splitlines()
    assert lines[0] == "[ERROR] [request abc, REST] unexpected error"
    assert lines[1] == "[ERROR] [request abc, REST] Traceback (most recent call last):"
    assert lines[-2:] == [
        "[ERROR] [request abc, REST] ValueError: wrong",
        "[ERROR] [request abc, REST] weights",
    ]
    assert all(line.startswith("[ERROR] [request abc, REST] ") for line in lines)


def test_lines_outside_of_a_request_have_the_level_only(output):
    logging.warning("one\ntwo")
    logging.critical("three")
    assert output.getvalue().splitlines() == ["[WARN ] one", "[WARN ] two", "[FATAL] three"]


def test_metrics_and_messages_are_unchanged(output):
    """TorchServe only recognizes metrics at the beginning of a line."""
    with log_context("request abc, REST"):
        logging.info("[METRICS]handler_requests_total.Count:1|#ModelName:m")
    assert output.getvalue() == "[METRICS]handler_requests_total.Count:1|#ModelName:m\n"


def test_handlers_of_other_programs_keep_their_format(monkeypatch):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("mine: %(message)s"))
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    request_log.install()
    with log_context("request abc, REST"):
        logging.warning("slow")
    assert stream.getvalue() == "mine: [request abc, REST] slow\n"
