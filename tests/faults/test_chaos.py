"""Runs of scripts/chaos: no request is lost or answered incorrectly, and each scenario stays within its limits."""

import os
import shutil
from dataclasses import replace

import pytest

from tests.chaos import report
from tests.chaos.run import RunOptions, run
from tests.chaos.scenarios import bodies, connections, lifecycle, overload
from tests.chaos.stack import Stack
from tests.server.fronted import needs_nginx

SECONDS = float(os.environ.get("CHAOS_SECONDS", "180"))
NOISY_MS = 500.0
"""A generous limit, because the load runs on the same machine as the server."""
LATENCY_CHECKS = ("slower by", "p99")

pytestmark = [needs_nginx, pytest.mark.slow, pytest.mark.timeout(900 + SECONDS)]


@pytest.fixture(scope="module")
def store(server, tmp_path_factory):
    """Copy the archives to a separate store, because the run adds versions."""
    folder = tmp_path_factory.mktemp("chaos-store")
    for name in server.models:
        shutil.copy2(server.store / f"{name}.mar", folder)
    return folder


@pytest.fixture(scope="module")
def stack(store, tmp_path_factory):
    with Stack(tmp_path_factory.mktemp("stack"), store) as stack:
        yield stack


def failed(result):
    """Return the failed checks, except those of latencies, which depend on the speed of this machine."""
    return [
        check
        for check in result.checks
        if not check.is_ok and not any(word in check.what for word in LATENCY_CHECKS)
    ]


def test_chaos_run_through_nginx_passes(store, tmp_path):
    with Stack(tmp_path / "run", store) as stack:
        result = run(stack, RunOptions(seed=1, seconds=SECONDS, via="nginx"), print)
    result = replace(result, ready_p99_ms=NOISY_MS)
    summary = report.summarize(result)
    assert not summary.problems, report.table(result, summary)
    assert stack.orphans() == []


def test_unfinished_uploads_stay_within_limits(stack):
    assert failed(connections.slow_uploads(stack, seconds=10.0)) == []


def test_idle_sockets_stay_within_limits(stack):
    assert failed(connections.idle_sockets(stack, count=3000, seconds=6.0)) == []


def test_many_calls_on_one_grpc_connection_stay_within_limits(stack):
    assert failed(connections.grpc_flood(stack, seconds=10.0)) == []


def test_hostile_json_stays_within_limits(stack):
    routes = ("/predictions/t5-small", "/v2/models/resnet-50/infer", "/model")
    assert failed(bodies.hostile_json(stack, copies=4, routes=routes)) == []


def test_long_batches_stay_within_limits(stack):
    assert failed(overload.long_batches(stack, seconds=15.0)) == []


def test_shutdown_under_load_stays_within_limits(stack):
    """Must run last, because it stops the server."""
    assert failed(lifecycle.sigterm(stack, clients=6, before=4.0)) == []
