"""Tests of the setting `cores`, which limits the cores of a server."""

import os

import pytest

from torchserve_models.serving.errors import ConfigError
from torchserve_models.serving.run_config import config_file
from torchserve_models.serving.run_config.cores import count_cores, parse_cores, server_cores
from torchserve_models.serving.run_config.run_plan import plan_run

ALLOWED = {2, 3, 4, 9}


@pytest.mark.parametrize(
    ("value", "cores"),
    [
        ("all", ALLOWED),
        ("1", {2}),
        ("3", {2, 3, 4}),
        ("64", ALLOWED),
        ("9-9", {9}),
        ("2,9", {2, 9}),
        ("2-4", {2, 3, 4}),
        ("3-4, 9", {3, 4, 9}),
    ],
)
def test_setting_selects_cores(value, cores):
    assert parse_cores(value, ALLOWED) == cores


@pytest.mark.parametrize("value", ["0", "-1", "half", "", "1.5", "2;3", "2-", "4-3", "2-3-4", "٣"])
def test_other_values_are_rejected(value):
    with pytest.raises(ConfigError, match="'cores'"):
        parse_cores(value, ALLOWED)


@pytest.mark.parametrize("value", ["5-5", "0-3", "2,1000"])
def test_cores_of_others_are_rejected(value):
    with pytest.raises(ConfigError, match="may not use; usable cores: 2, 3, 4, 9"):
        parse_cores(value, ALLOWED)


def test_cores_are_those_of_this_process_by_default():
    assert server_cores({}) == os.sched_getaffinity(0)
    assert server_cores({"cores": "1"}) == {min(os.sched_getaffinity(0))}


def test_other_systems_cannot_limit_cores(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    assert len(server_cores({"cores": "all"})) == os.cpu_count()
    with pytest.raises(ConfigError, match="only Linux"):
        server_cores({"cores": "1"})


def test_invalid_setting_is_found_before_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(config_file, "read", lambda: {"cores": "many"})
    with pytest.raises(ConfigError, match="'many' is not a value of 'cores'"):
        plan_run(["a"], tmp_path, tmp_path)


def test_cgroup_limits_the_number_of_cores(monkeypatch):
    monkeypatch.setattr("torchserve_models.serving.run_config.cores.usable_cores", lambda: 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert count_cores({}) == 3
    assert count_cores({"cores": "2"}) == 2
    assert len(server_cores({})) == 8
