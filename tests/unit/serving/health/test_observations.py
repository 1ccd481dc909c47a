"""Tests of readiness based on observations: front end, phases, and versions lost at a restart."""

from dataclasses import replace

import pytest

from tests.unit.serving.health.observed import (
    COMPUTING,
    CUSTOM,
    DEAD,
    LOADING,
    MODEL,
    NOW,
    READY,
    SERVING,
    snapshot,
    workers,
)
from torchserve_models.client import ModelNotFound
from torchserve_models.serving.health import state_report


def verdicts(*versions, **options):
    """Return whether the server is ready, and whether it is at full strength."""
    report = snapshot(*versions, **options).report(NOW)
    return report.reason is None, report.strict_reason is None


def test_broken_non_default_version_matters_in_strict_mode_only():
    broken = replace(workers(LOADING), model=replace(MODEL, version="2", default=False, workers=(LOADING,)))
    assert verdicts(SERVING, broken) == (True, False)
    report = snapshot(SERVING, broken).report(NOW)
    assert report.model_problem("m", "2") == "worker 8 is loading the model"
    assert report.model_problem("m") is None
    with pytest.raises(ModelNotFound, match="Model version: 3 does not exist for model: m"):
        report.model_problem("m", "3")


def test_broken_model_leaves_others_ready():
    broken = replace(workers(DEAD), model=replace(MODEL, name="b", workers=(DEAD,)))
    report = snapshot(SERVING, broken).report(NOW)
    assert report.problem() == "b: worker 7 has died"
    assert report.model_problem("m") is None


def test_undescribed_model_matters_in_strict_mode_only():
    assert verdicts(SERVING, undescribed={"a/b": "not found"}) == (True, False)


def test_server_without_models_is_not_ready():
    assert verdicts() == (False, False)
    assert verdicts(undescribed={"a/b": "not found"}) == (False, False)


@pytest.mark.parametrize("phase", ["starting", "restarting", "stopping"])
def test_only_a_running_server_is_ready(phase):
    observed = snapshot(SERVING, phase=phase)
    assert observed.report(NOW).problem() is not None
    # While the server starts, one model after another becomes ready; when it stops, none takes requests any more.
    assert (observed.report(NOW).model_problem("m") is None) == (phase == "starting")
    assert state_report.as_json(observed, NOW)["phase"] == phase


@pytest.mark.parametrize(("seconds", "ready"), [(3.0, True), (9.0, True), (11.0, False)])
def test_front_end_may_be_silent_for_ten_seconds(seconds, ready):
    observed = snapshot(SERVING, front_end_answered=NOW - seconds)
    assert (observed.report(NOW).problem() is None) == ready
    assert (observed.report(NOW).model_problem("m") is None) == ready
    assert state_report.as_json(observed, NOW)["live"] == ready


def test_old_observations_are_not_used():
    assert snapshot(SERVING).report(NOW + 6).problem() == "the supervisor has observed nothing for 6 s"


def test_state_counts_requests_in_flight():
    busy = replace(READY, activity=COMPUTING)
    waiting = replace(workers(busy), model=replace(MODEL, workers=(busy, READY), queue_waiting=3))
    (model,) = state_report.as_json(snapshot(waiting), NOW)["models"]
    assert (model["queue_waiting"], model["in_flight"], model["idle"]) == (3, 4, False)
    assert [worker["computing_s"] for worker in model["workers"]] == [19.0, None]
    assert model["ready"]
    (model,) = state_report.as_json(snapshot(SERVING), NOW)["models"]
    assert (model["in_flight"], model["idle"]) == (0, True)
    (model,) = state_report.as_json(snapshot(workers(replace(CUSTOM, waiting=False))), NOW)["models"]
    assert (model["in_flight"], model["idle"]) == (1, False)


GONE = {("m", "0"): "its archive is gone"}
SECOND = replace(SERVING, model=replace(MODEL, version="2", default=False))


@pytest.mark.parametrize(
    ("case", "versions", "missing", "lost_defaults", "ready", "strict"),
    [
        ("its only version was not restored", (), GONE, {"m": "0"}, False, False),
        (
            "the default version was not restored, another one answers",
            (SERVING,),
            GONE,
            {"m": "0"},
            False,
            False,
        ),
        ("a version that is not the default one was not restored", (SERVING,), GONE, {}, True, False),
        (
            "the default version is there, and another one is the default",
            (SERVING,),
            {},
            {"m": "2"},
            False,
            False,
        ),
        ("what was lost is the default version again", (SERVING,), {}, {"m": "1"}, True, True),
        ("another model's", (SERVING,), {("n", "0"): "gone"}, {"n": "0"}, False, False),
    ],
)
def test_versions_lost_at_restart_make_server_unready(case, versions, missing, lost_defaults, ready, strict):
    losses = {"missing": missing, "lost_defaults": lost_defaults}
    assert verdicts(*versions, **losses) == (ready, strict), case


def test_lost_default_version_affects_requests_without_version_only():
    observed = snapshot(SERVING, SECOND, missing=GONE, lost_defaults={"m": "0"})
    report = observed.report(NOW)
    reason = report.model_problem("m")
    assert "default version 0 was not restored: its archive is gone; 1 is the default version" in reason
    assert report.model_problem("m", "1") is None
    assert report.model_problem("m", "2") is None
    assert report.model_problem("m", "0") == "version 0 was not loaded again: its archive is gone"
    with pytest.raises(ModelNotFound, match="Model not found: n"):
        report.model_problem("n")
    state = state_report.as_json(observed, NOW)
    assert state["unavailable"] == {"m": reason}
    assert [model["ready"] for model in state["models"]] == [True, True]


def test_model_lost_at_restart_is_not_unknown():
    report = snapshot(missing=GONE, lost_defaults={"m": "0"}).report(NOW)
    for version in (None, "0"):
        assert report.model_problem("m", version) == "version 0 was not loaded again: its archive is gone"
    assert report.problem() == "m 0: not loaded again: its archive is gone"
