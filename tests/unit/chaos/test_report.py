"""Tests of the report of a run."""

import json

import pytest

from tests.chaos import report
from tests.chaos.faults import Fault
from tests.chaos.readiness import ProbeVerdict
from tests.chaos.resources import ResourceUsage
from tests.unit.chaos.records import record, steady

FINE = ProbeVerdict(100, 1.0, 2.0, 3.0, 0.0, 0.0)
USED = {"java": ResourceUsage(1, 300_000_000, 90)}


def result(records, **changes):
    fields = {"seed": 1, "seconds": 60.0, "via": "nginx", "records": records, "faults": ()}
    fields |= {"readiness": {"": FINE, "m": FINE}, "before": USED, "after": USED}
    return report.RunResult(**(fields | changes))


def test_run_without_failed_checks_passes():
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
            {"readiness": {"m": ProbeVerdict(9, 1.0, 1.0, 1.0, 3.0, 0.0)}},
            "readiness of m: 3.0 s false while it answered",
        ),
        (
            {"readiness": {"": ProbeVerdict(9, 1.0, 1.0, 1.0, 0.0, 2.0)}},
            "server: 2.0 s true while it answered nothing",
        ),
        (
            {"readiness": {"": ProbeVerdict(9, 1.0, 80.0, 90.0, 0.0, 0.0)}},
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
def test_failed_check_fails_the_run(changes, finding):
    run = result(steady(0, 60), **changes)
    summary = report.summarize(run)
    assert any(finding in problem for problem in summary.problems)
    assert "FAILED" in report.table(run, summary)
    assert report.as_json(run, summary)["passed"] is False


def test_wrong_answer_and_lost_request_fail_the_run_and_are_listed():
    bad = [
        record(5.0, 5.2, "wrong"),
        record(6.0, 8.0, "lost", label="500 Worker died", message="Worker died."),
    ]
    summary = report.summarize(result(steady(0, 60) + bad))
    assert summary.problems == ["1 wrong answers", "1 requests lost outside of kills"]
    assert [example["category"] for example in summary.examples] == ["wrong", "lost"]
    assert summary.labels == {"good wrong: 200": 1, "good lost: 500 Worker died": 1}


def test_lost_request_explained_by_a_kill_is_counted_separately():
    lost = [record(9.9, 10.1, "lost", label="500 Worker died")]
    kill = [Fault(10.0, "worker", "kill", "m", 10.0)]
    raw = report.summarize(result(steady(0, 60) + lost, faults=kill, via="raw"))
    assert (raw.lost, raw.lost_in_kill, raw.problems) == (0, {"worker": 1}, [])
    nginx = report.summarize(result(steady(0, 60) + lost, faults=kill))
    assert (nginx.lost, nginx.lost_in_kill) == (1, {})
    assert "worker kill m 0.1 s before" in nginx.examples[0]["near"]
    assert nginx.problems


def test_run_without_answers_fails():
    assert report.summarize(result([])).problems == ["no good request was answered"]


def test_report_can_be_serialized_as_json():
    run = result(steady(0, 5), faults=[Fault(1.0, "worker", "kill", "m", 1.0)])
    value = json.loads(json.dumps(report.as_json(run, report.summarize(run))))
    assert value["passed"] is True
    assert value["recoveries"] == [{"fault": "worker kill m", "seconds": 0.2}]
