"""Tests of the schedule: determined by the seed, bounded, and with time to recover."""

from itertools import pairwise

import pytest

from tests.chaos.plan import ABUSES, FAULTS, KINDS, MAX_EVENTS, QUIET_END_S, schedule

MODELS = ("resnet-50", "t5-small")


def test_schedule_depends_only_on_the_seed():
    assert schedule(1, 180, KINDS, MODELS) == schedule(1, 180, KINDS, MODELS)
    assert schedule(1, 180, KINDS, MODELS) != schedule(2, 180, KINDS, MODELS)


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_three_minutes_contain_every_kind(seed):
    events = schedule(seed, 180, KINDS, MODELS)
    assert {event.kind for event in events} == set(KINDS)
    assert {event.target for event in events} <= set(MODELS)


def test_events_are_ordered_and_the_end_has_no_faults():
    events = schedule(7, 120, KINDS, MODELS)
    assert all(before.at <= after.at for before, after in pairwise(events))
    faults = [event for event in events if event.kind in FAULTS]
    assert faults[-1].at <= 120 - QUIET_END_S
    assert all(after.at - before.at > 5 for before, after in pairwise(faults))
    assert all(event.at < 120 for event in events)


def test_faults_do_not_depend_on_the_abuse():
    alone = schedule(3, 90, FAULTS, MODELS)
    assert alone == tuple(event for event in schedule(3, 90, KINDS, MODELS) if event.kind in FAULTS)


def test_without_nginx_only_server_faults_are_scheduled():
    kinds = {event.kind for event in schedule(1, 180, KINDS, MODELS, with_front=False)}
    assert kinds == set(KINDS) - {"gateway", "nginx"}


def test_only_requested_kinds_are_scheduled():
    assert {event.kind for event in schedule(1, 60, ["slow"], MODELS)} == {"slow"}
    assert schedule(1, 60, [], MODELS) == ()


def test_unknown_kind_is_rejected():
    with pytest.raises(ValueError, match="unknown kind 'earthquake'; known: worker, java"):
        schedule(1, 60, ["earthquake"], MODELS)


def test_number_of_events_is_bounded():
    assert len(schedule(1, 10**5, ABUSES, MODELS)) == MAX_EVENTS
