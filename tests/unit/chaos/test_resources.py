"""Tests of the comparison of resource usage."""

from tests.chaos.resources import MB, SLACK_FDS, SLACK_MB, ResourceUsage, problems

BEFORE = {"worker": ResourceUsage(3, 1000 * MB, 30)}


def test_growth_within_the_slack_is_ignored():
    assert (
        problems(BEFORE, {"worker": ResourceUsage(3, 1100 * MB + SLACK_MB["worker"] * MB, 33 + SLACK_FDS)})
        == []
    )
    assert problems(BEFORE, {"worker": ResourceUsage(3, 10 * MB, 1)}) == []


def test_each_kind_of_growth_is_reported():
    after = {"worker": ResourceUsage(4, 1500 * MB, 90)}
    assert problems(BEFORE, after) == [
        "worker: 4 processes instead of 3",
        "worker: 1500 MB instead of 1000",
        "worker: 90 file descriptors instead of 30",
    ]


def test_missing_role_is_reported():
    assert problems(BEFORE, {}) == ["worker: 0 processes instead of 3"]
