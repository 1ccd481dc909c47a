"""Tests of the models in service."""

import os
from dataclasses import replace

import pytest

from torchserve_models.serving.health.in_service import CONFIRM_LIMIT_S, InServiceModels
from torchserve_models.serving.health.model_states import ObservedVersion, ObservedWorker
from torchserve_models.serving.health.observations import REGISTRATION_SLACK_S, ServerObservation, Version

READY = ObservedWorker("1", "READY", os.getpid(), True, 1)
MODEL = ObservedVersion("m", "1", True, "m.mar", 1, 1, 20, 20, 0, 10, (READY,))
VERSION = Version(MODEL, 1, needs_answer=False)
LOADING = replace(VERSION, model=replace(MODEL, workers=(replace(READY, status="UNLOADING"),)))
ENDED = replace(VERSION, model=replace(MODEL, workers=(replace(READY, alive=False),)))
NOW = 1000.0


@pytest.fixture
def models():
    return InServiceModels()


def is_in_service(models, version, now=NOW, described_at=NOW, serving_since=NOW - 100):
    (marked,) = models.mark([version], {"m": described_at}, serving_since, now)
    return marked.in_service


def test_model_is_in_service_once_it_was_ready(models):
    assert not is_in_service(models, LOADING)
    assert is_in_service(models, VERSION)
    assert is_in_service(models, LOADING)


def test_model_is_in_service_after_its_startup_limit(models):
    limit = MODEL.startup_timeout + REGISTRATION_SLACK_S
    assert not is_in_service(models, LOADING)
    assert not is_in_service(models, LOADING, NOW + limit)
    assert is_in_service(models, LOADING, NOW + limit + 0.1)


@pytest.mark.parametrize("names", [set(), {"other"}])
def test_removed_model_must_become_ready_again(models, names):
    models.add(["m"])
    models.keep_only({"m", "other"})
    assert is_in_service(models, LOADING)
    models.keep_only(names)
    assert not is_in_service(models, LOADING)


def test_model_without_workers_leaves_service(models):
    models.add(["m"])
    assert not is_in_service(models, replace(LOADING, min_workers=0))
    assert not is_in_service(models, LOADING)


def test_version_that_is_not_the_default_does_not_put_its_model_in_service(models):
    assert not is_in_service(models, replace(VERSION, model=replace(MODEL, default=False)))


@pytest.mark.parametrize(
    ("previous", "described_at", "serving_since", "after_s", "expected"),
    [
        (VERSION, NOW - 1, NOW - 100, 0.0, False),
        (VERSION, NOW - 1, NOW - 100, CONFIRM_LIMIT_S, True),
        (VERSION, NOW + 0.1, NOW - 100, 0.2, True),  # TorchServe still lists the worker
        (VERSION, NOW - 1, NOW - 0.5, 0.0, True),  # description by the previous front end
        (LOADING, NOW - 1, NOW - 100, 0.0, True),  # the worker could not answer before its end
    ],
)
def test_ended_worker_counts_unless_it_may_be_scaled_down(
    models, previous, described_at, serving_since, after_s, expected
):
    models.add(["m"])
    assert models.note_ended_workers(ServerObservation(NOW, 0.0, versions=(previous,)), [ENDED.model], NOW)
    assert is_in_service(models, ENDED, NOW + after_s, described_at, serving_since) is expected


def test_ended_worker_is_new_only_once(models):
    previous = ServerObservation(NOW, 0.0, versions=(VERSION,))
    assert not models.note_ended_workers(previous, [MODEL], NOW)
    assert models.note_ended_workers(previous, [ENDED.model], NOW)
    assert not models.note_ended_workers(previous, [ENDED.model], NOW + 1)
