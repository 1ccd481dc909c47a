"""The truth table of readiness."""

from dataclasses import replace

import pytest

from handlers.core.activity import Activity
from torchserve_models.serving.health import readiness, state_report
from torchserve_models.serving.health.model_states import Model, Worker
from torchserve_models.serving.health.readiness import Snapshot, Version

NOW = 5000.0
IDLE = Activity(NOW - 0.3, 0.0, NOW - 50, NOW - 50, 0, 3, 9)
COMPUTING = replace(IDLE, batch_started=NOW - 19, progress=NOW - 2, batch_requests=4)
NEW = replace(IDLE, answers=0, batches=0, last_answer=0.0)
READY = Worker("1", "READY", 7, True, 1, activity=IDLE)
FOREIGN = replace(READY, activity=None)
LOADING = Worker("2", "UNLOADING", 8, True, 1)
STARTING = Worker("2", "UNLOADING", -1, False, 0)
DEAD = replace(READY, alive=False, activity=None)
MODEL = Model("m", "1", True, "m.mar", 1, 1, 120, 60, 0, 10, (READY,))
SERVING = Version(MODEL, 1)


def workers(*found, **options):
    return replace(SERVING, model=replace(MODEL, workers=found), **options)


def snapshot(*versions, **options):
    options = {"phase": "running", "front_end_answered": NOW - 0.5} | options
    return Snapshot(NOW, 1.7e9, versions=versions, **options)


def verdicts(*versions, **options):
    """Of the server, and of the server in strict mode."""
    found = snapshot(*versions, **options)
    return tuple(readiness.server_problem(found, NOW, strict=strict) is None for strict in (False, True))


@pytest.mark.parametrize(
    ("case", "version", "ready", "strict"),
    [
        ("idle", SERVING, True, True),
        ("a batch of 19 s", workers(replace(READY, activity=COMPUTING)), True, True),
        (
            "a full queue",
            replace(SERVING, model=replace(MODEL, queue_waiting=10, queue_free=0)),
            True,
            True,
        ),
        ("killed", workers(DEAD), False, False),
        ("one of two killed", workers(READY, DEAD, min_workers=2), True, False),
        ("suspended", workers(replace(READY, stopped=True)), False, False),
        ("no heartbeat", workers(replace(READY, activity=replace(IDLE, heartbeat=NOW - 6))), False, False),
        (
            "no heartbeat in a batch",
            workers(replace(READY, activity=replace(COMPUTING, heartbeat=NOW - 6))),
            False,
            False,
        ),
        (
            "no progress",
            workers(replace(READY, activity=replace(COMPUTING, progress=NOW - 61))),
            False,
            False,
        ),
        ("loading after a restart", workers(LOADING), False, False),
        ("waiting for a restart", workers(STARTING), False, False),
        ("given up", workers(), False, False),
        ("a second worker is being added", workers(READY, LOADING, min_workers=2), True, False),
        ("a new worker has not answered", workers(replace(READY, activity=NEW)), False, False),
        (
            "it has not, beside one that has",
            workers(READY, replace(READY, activity=NEW), min_workers=2),
            True,
            True,
        ),
        (
            "no question is known for it",
            workers(replace(READY, activity=NEW), needs_answer=False),
            True,
            True,
        ),
        ("not based on our handler", workers(FOREIGN), True, True),
        ("not based on ours, killed", workers(replace(FOREIGN, alive=False)), False, False),
        ("not based on ours, suspended", workers(replace(FOREIGN, stopped=True)), False, False),
        ("questions are not answered", replace(SERVING, probe_failure="HTTP 500"), False, False),
        ("requests wait beside idle workers", replace(SERVING, queue_stalled_s=11.0), False, False),
        ("scaled to 0", replace(SERVING, model=replace(MODEL, workers=()), min_workers=0), True, True),
        ("a registration in progress", workers(LOADING, in_service=False), True, False),
    ],
)
def test_the_server_with_one_model_like_this(case, version, ready, strict):
    assert verdicts(version) == (ready, strict), case
    assert verdicts(SERVING, replace(version, model=replace(version.model, name="other"))) == (ready, strict)


def test_a_broken_version_that_is_not_the_default_one_matters_in_strict_mode_only():
    broken = replace(workers(LOADING), model=replace(MODEL, version="2", default=False, workers=(LOADING,)))
    assert verdicts(SERVING, broken) == (True, False)
    found = snapshot(SERVING, broken)
    assert readiness.model_problem(found, broken, NOW) == "worker 8 is loading the model"
    assert readiness.model_problem(found, SERVING, NOW) is None
    assert found.named("m") == SERVING
    assert found.named("m", "2") == broken
    assert found.named("m", "3") is None


def test_one_slow_or_broken_model_leaves_the_others_ready():
    broken = replace(workers(DEAD), model=replace(MODEL, name="b", workers=(DEAD,)))
    found = snapshot(SERVING, broken)
    assert readiness.server_problem(found, NOW) == "b: worker 7 has died"
    assert readiness.model_problem(found, SERVING, NOW) is None


def test_a_model_that_cannot_be_described_matters_in_strict_mode_only():
    assert verdicts(SERVING, undescribed={"a/b": "not found"}) == (True, False)


def test_without_a_model_nothing_is_ready():
    assert verdicts() == (False, False)
    assert verdicts(undescribed={"a/b": "not found"}) == (False, False)


@pytest.mark.parametrize("phase", ["starting", "restarting", "stopping"])
def test_only_a_running_server_is_ready(phase):
    found = snapshot(SERVING, phase=phase)
    assert readiness.server_problem(found, NOW) is not None
    # While the server starts, one model after another becomes ready; when it stops, none takes requests any more.
    assert (readiness.model_problem(found, SERVING, NOW) is None) == (phase == "starting")
    assert state_report.as_json(found, NOW)["phase"] == phase


@pytest.mark.parametrize(("seconds", "ready"), [(3.0, True), (9.0, True), (11.0, False)])
def test_a_front_end_may_be_slow_for_a_moment(seconds, ready):
    found = snapshot(SERVING, front_end_answered=NOW - seconds)
    assert (readiness.server_problem(found, NOW) is None) == ready
    assert (readiness.model_problem(found, SERVING, NOW) is None) == ready
    assert state_report.as_json(found, NOW)["live"] == ready


def test_old_observations_are_no_observations():
    assert (
        readiness.server_problem(snapshot(SERVING), NOW + 6) == "the supervisor has observed nothing for 6 s"
    )


def test_the_state_counts_what_is_in_flight():
    busy = replace(READY, activity=COMPUTING)
    waiting = replace(workers(busy), model=replace(MODEL, workers=(busy, READY), queue_waiting=3))
    (model,) = state_report.as_json(snapshot(waiting), NOW)["models"]
    assert (model["queue_waiting"], model["in_flight"], model["idle"]) == (3, 4, False)
    assert [worker["computing_s"] for worker in model["workers"]] == [19.0, None]
    assert model["ready"]
    (model,) = state_report.as_json(snapshot(SERVING), NOW)["models"]
    assert (model["in_flight"], model["idle"]) == (0, True)
    (model,) = state_report.as_json(snapshot(workers(replace(FOREIGN, waiting=False))), NOW)["models"]
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
def test_versions_that_a_restart_could_not_bring_back(case, versions, missing, lost_defaults, ready, strict):
    losses = {"missing": missing, "lost_defaults": lost_defaults}
    assert verdicts(*versions, **losses) == (ready, strict), case


def test_only_requests_without_a_version_suffer_from_a_lost_default_version():
    found = snapshot(SERVING, SECOND, missing=GONE, lost_defaults={"m": "0"})
    reason = readiness.probe_problem(found, "m", None, NOW)
    assert "default version 0 was not restored: its archive is gone; 1 is the default version" in reason
    assert readiness.probe_problem(found, "m", "1", NOW) is None
    assert readiness.probe_problem(found, "m", "2", NOW) is None
    assert (
        readiness.probe_problem(found, "m", "0", NOW) == "version 0 was not loaded again: its archive is gone"
    )
    with pytest.raises(KeyError):
        readiness.probe_problem(found, "n", None, NOW)
    state = state_report.as_json(found, NOW)
    assert state["unavailable"] == {"m": reason}
    assert [model["ready"] for model in state["models"]] == [True, True]


def test_a_model_of_which_nothing_was_restored_is_not_unknown():
    found = snapshot(missing=GONE, lost_defaults={"m": "0"})
    for version in (None, "0"):
        assert (
            readiness.probe_problem(found, "m", version, NOW)
            == "version 0 was not loaded again: its archive is gone"
        )
    assert readiness.server_problem(found, NOW) == "m 0: not loaded again: its archive is gone"
