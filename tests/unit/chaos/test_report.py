"""Counts and the verdict."""

import json

import pytest

from tests.chaos import report
from tests.chaos.faults import Fault
from tests.chaos.readiness import Verdict
from tests.chaos.resources import Usage
from tests.unit.chaos.records import record, steady

FINE = Verdict(100, 1.0, 2.0, 3.0, 0.0, 0.0)
USED = {"java": Usage(1, 300_000_000, 90)}


def result(records, **changes):
    fields = {"seed": 1, "seconds": 60.0, "via": "nginx", "records": records, "faults": ()}
    fields |= {"readiness": {"": FINE, "m": FINE}, "before": USED, "after": USED}
    return report.Result(**(fields | changes))


def test_a_run_without_findings_passes():
    run = result([*steady(0, 60), record(3.0, 3.1, kind="bad", label="400")])
    summary = report.summarize(run)
    assert summary.problems == []
    assert summary.counts == {"good": {"right": 240}, "bad": {"right": 1}}
    assert summary.latency_ms == {"p50": 200.0, "p99": 200.0}
    assert "PASSED" in report.table(run, summary)


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        (
            {"readiness": {"m": Verdict(9, 1.0, 1.0, 1.0, 3.0, 0.0)}},
            "readiness of m: 3.0 s false while it answered",
        ),
        (
            {"readiness": {"": Verdict(9, 1.0, 1.0, 1.0, 0.0, 2.0)}},
            "server: 2.0 s true while it answered nothing",
        ),
        (
            {"readiness": {"": Verdict(9, 1.0, 80.0, 90.0, 0.0, 0.0)}},
            "readiness took 80 ms (p99; 50 allowed)",
        ),
        ({"leaks": ["java: 900 MB instead of 300"]}, "java: 900 MB instead of 300"),
        ({"structure": ["resnet-50 is missing"]}, "resnet-50 is missing"),
        ({"faults": [Fault(99.0, "java", "kill", "", 99.1)]}, "came back never from: java kill"),
        (
            {"faults": [Fault(5.0, "scale", "up-and-down", "m", 6.0, "Timeout: x")]},
            "scale up-and-down m failed",
        ),
    ],
)
def test_each_finding_fails_it(changes, finding):
    run = result(steady(0, 60), **changes)
    summary = report.summarize(run)
    assert any(finding in problem for problem in summary.problems)
    assert "FAILED" in report.table(run, summary)
    assert report.as_json(run, summary)["passed"] is False


def test_wrong_answers_and_lost_requests_fail_it_and_are_shown():
    bad = [
        record(5.0, 5.2, "wrong"),
        record(6.0, 8.0, "lost", label="500 Worker died", message="Worker died."),
    ]
    summary = report.summarize(result(steady(0, 60) + bad))
    assert summary.problems == ["1 wrong answers", "1 requests lost outside of kills"]
    assert [each["category"] for each in summary.examples] == ["wrong", "lost"]
    assert summary.labels == {"good wrong: 200": 1, "good lost: 500 Worker died": 1}


def test_what_a_kill_explains_is_counted_apart():
    lost = [record(9.9, 10.1, "lost", label="500 Worker died")]
    kill = [Fault(10.0, "worker", "kill", "m", 10.0)]
    raw = report.summarize(result(steady(0, 60) + lost, faults=kill, via="raw"))
    assert (raw.lost, raw.lost_in_kill, raw.problems) == (0, {"worker": 1}, [])
    nginx = report.summarize(result(steady(0, 60) + lost, faults=kill))
    assert (nginx.lost, nginx.lost_in_kill) == (1, {})
    assert "worker kill m 0.1 s before" in nginx.examples[0]["near"]
    assert nginx.problems


def test_silence_is_no_success():
    assert report.summarize(result([])).problems == ["no good request was answered"]


def test_all_of_it_is_json():
    run = result(steady(0, 5), faults=[Fault(1.0, "worker", "kill", "m", 1.0)])
    value = json.loads(json.dumps(report.as_json(run, report.summarize(run))))
    assert value["passed"] is True
    assert value["recoveries"] == [{"fault": "worker kill m", "seconds": 0.2}]
