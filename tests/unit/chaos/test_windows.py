"""Tests of fault windows, which explain lost requests."""

from dataclasses import replace

import pytest

from tests.chaos.faults import Fault
from tests.chaos.outcomes import PLAIN
from tests.chaos.windows import explain, near, windows
from tests.unit.chaos.records import record, steady

WORKER = Fault(10.0, "worker", "kill", "m", 10.1)
JAVA = Fault(30.0, "java", "kill", "", 30.1)


def test_window_ends_with_the_first_answer_to_a_later_request():
    records = [*steady(0, 10), record(9.9, 14.0), record(12.0, 15.0)]
    (window,) = windows([WORKER], records)
    assert window.seconds == 5.0


def test_window_of_a_server_fault_ends_when_every_model_has_answered():
    records = [record(31.0, 35.0, model="a"), record(31.0, 42.0, model="b"), record(50.0, 50.1, model="a")]
    assert windows([JAVA], records)[0].seconds == 12.0
    assert windows([JAVA], records[::2])[0].seconds == 5.0
    never = [record(31.0, 35.0, model="a"), record(1.0, 2.0, model="b")]
    assert windows([JAVA], never)[0].seconds is None


def test_failed_fault_has_no_window():
    assert windows([Fault(1.0, "worker", "kill", "m", 1.0, "LookupError: no worker")], steady(0, 5)) == []


@pytest.mark.parametrize(
    ("via", "kind", "excused"),
    [
        ("raw", "worker", True),
        ("raw", "java", True),
        ("nginx", "worker", False),
        ("nginx", "java", False),
        ("nginx", "nginx", True),
        ("nginx", "gateway", False),
        ("client", "worker", False),
        ("client", "nginx", False),
        ("client", "java", False),
        ("raw", "scale", False),
        ("nginx", "version", False),
    ],
)
def test_kill_explains_losses_that_no_retry_can_hide(via, kind, excused):
    target = "" if kind in ("java", "nginx", "gateway") else "m"
    fault_windows = windows([Fault(10.0, kind, "kill", target, 10.1)], [record(11.0, 13.0)])
    lost = record(9.0, 10.2, "lost")
    assert (explain(lost, fault_windows, via) == kind) is excused


def test_nginx_kill_explains_lost_plain_http_request_beside_the_python_client():
    fault_windows = windows([Fault(10.0, "nginx", "kill-all", "", 10.1)], [record(11.0, 13.0)])
    lost = replace(record(9.0, 10.2, "lost", kind="bad"), protocol=PLAIN)
    assert explain(lost, fault_windows, "client") == "nginx"


def test_worker_kill_explains_no_lost_grpc_call_behind_nginx():
    fault_windows = windows([Fault(10.0, "worker", "kill", "m", 10.1)], [record(11.0, 13.0)])
    lost = replace(record(9.0, 10.2, "lost"), protocol="open-inference-grpc")
    assert explain(lost, fault_windows, "raw") == "worker"
    assert explain(lost, fault_windows, "nginx") is None


def test_fault_does_not_explain_requests_of_other_times_or_models():
    fault_windows = windows([WORKER], [*steady(0, 10), record(11.0, 13.0)])
    assert explain(record(5.0, 8.0, "lost"), fault_windows, "raw") is None
    assert explain(record(20.0, 21.0, "lost"), fault_windows, "raw") is None
    assert explain(record(9.0, 10.2, "lost", model="other"), fault_windows, "raw") is None


def test_lost_request_is_described_with_nearby_faults():
    assert near(record(9.0, 12.0, "lost"), [WORKER, JAVA]) == "worker kill m 2.0 s before"
    assert near(record(100.0, 101.0, "lost"), [WORKER, JAVA]) == "no fault near"
