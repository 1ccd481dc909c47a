"""Tests of the comparison of readiness probes with answers."""

import pytest

from tests.chaos.probes import ProbeSample
from tests.chaos.readiness import SETTLE_S, SILENT_S, answering_intervals, judge, silent_intervals
from tests.unit.chaos.records import probed, record, steady


def test_ready_probe_of_answering_model_is_correct():
    verdict = judge({"m": probed(0, 20, True)}, steady(0, 20))["m"]
    assert (verdict.false_alarm_s, verdict.missed_s) == (0, 0)
    assert verdict.probes == 200
    assert verdict.p99_ms == 1.0


def test_unready_probe_of_answering_model_is_a_false_alarm():
    samples = probed(0, 10, True) + probed(10, 13, False) + probed(13, 20, True)
    assert judge({"m": samples}, steady(0, 20))["m"].false_alarm_s == pytest.approx(3.0)


def test_unready_probe_is_correct_while_requests_are_lost():
    records = [*steady(0, 10), record(10.0, 13.0, "lost"), *steady(13, 20)]
    samples = probed(0, 10, True) + probed(10, 13, False) + probed(13, 20, True)
    assert judge({"m": samples}, records)["m"].false_alarm_s == 0


def test_readiness_may_lag_behind_the_first_answers():
    records = steady(0, 10) + steady(16, 30)
    samples = probed(0, 10, True) + probed(10, 16 + SETTLE_S, False) + probed(16 + SETTLE_S, 30, True)
    assert judge({"m": samples}, records)["m"].false_alarm_s == 0
    late = probed(0, 10, True) + probed(10, 20, False) + probed(20, 30, True)
    assert judge({"m": late}, records)["m"].false_alarm_s > 1


def test_ready_probe_of_silent_model_is_a_missed_outage():
    records = [*steady(0, 5), record(5.0, 35.0, "lost"), *steady(35, 40)]
    verdict = judge({"m": probed(0, 40, True)}, records)["m"]
    assert verdict.missed_s == pytest.approx(30 - SILENT_S - SETTLE_S, abs=1)
    false = probed(0, 7, True) + probed(7, 35, False) + probed(35, 40, True)
    assert judge({"m": false}, records)["m"].missed_s < 0.5


def test_latencies_during_a_restart_are_ignored():
    slow = [ProbeSample(5.0 + n / 10, 900.0, 200) for n in range(10)]
    samples = probed(0, 5, True) + slow + probed(7, 20, True)
    assert judge({"m": samples}, steady(0, 20))["m"].p99_ms == 900
    assert judge({"m": samples}, steady(0, 20), down=[(4.9, 7.0)])["m"].p99_ms == 1


def test_unanswered_probe_of_a_stopped_proxy_is_no_false_alarm():
    silent = [ProbeSample(5.0 + n, 900.0, 0) for n in range(3)]
    samples = probed(0, 5, True) + silent + probed(8, 20, True)
    assert judge({"m": samples}, steady(0, 20))["m"].false_alarm_s > 2
    assert judge({"m": samples}, steady(0, 20), down=[(4.9, 9.0)])["m"].false_alarm_s == 0
    refused = [ProbeSample(5.0 + n, 900.0, 503) for n in range(3)]
    samples = probed(0, 5, True) + refused + probed(8, 20, True)
    assert judge({"m": samples}, steady(0, 20), down=[(4.9, 9.0)])["m"].false_alarm_s > 2


def test_model_without_requests_is_not_silent():
    assert silent_intervals(steady(0, 5) + steady(60, 65)) == []


def test_slow_model_may_pause_longer_between_answers():
    slow = [record(8.0 * n, 8.0 * n + 8, "right") for n in range(9)]
    assert silent_intervals([*slow, record(72.0, 92.0)]) == []
    assert silent_intervals([*slow, record(72.0, 102.0)]) == [(96.0, 102.0 - SETTLE_S)]


def test_model_without_answers_is_silent():
    assert silent_intervals([record(0.0, 30.0, "lost")]) == [(SILENT_S, 30.0)]


def test_refused_request_ends_an_answering_period():
    records = [*steady(0, 20), record(10.0, 10.1, "refused")]
    (first, second) = answering_intervals(records)
    assert first[1] <= 10.1
    assert second[0] >= 10 + SETTLE_S


def test_server_is_answering_while_every_model_answers():
    records = steady(0, 30, "a") + steady(0, 10, "b") + [record(10.0, 30.0, "lost", "b")]
    verdict = judge({"": probed(0, 30, False), "a": [], "b": []}, records)[""]
    assert verdict.false_alarm_s == pytest.approx(10 - SETTLE_S, abs=1)
    assert judge({"": probed(0, 30, True)}, records)[""].missed_s == pytest.approx(20 - SILENT_S, abs=1)
