"""scripts/chaos: minutes of faults and hostile clients without a lost or wrong answer; single loads at their bars."""

import os
import shutil
from dataclasses import replace

import pytest

from tests.chaos import report
from tests.chaos.run import Options, run
from tests.chaos.scenarios import bodies, connections, lifecycle, overload
from tests.chaos.stack import Stack
from tests.server.fronted import needs_nginx

SECONDS = float(os.environ.get("CHAOS_SECONDS", "180"))
NOISY_MS = 500.0
"""The machine that runs this runs the load, too: milliseconds are measured elsewhere, with nothing beside."""
NOT_HERE = ("slower by", "p99")

pytestmark = [needs_nginx, pytest.mark.slow, pytest.mark.timeout(900 + SECONDS)]


@pytest.fixture(scope="module")
def store(server, tmp_path_factory):
    """Archives of its own, as versions are added."""
    folder = tmp_path_factory.mktemp("chaos-store")
    for name in server.models:
        shutil.copy2(server.store / f"{name}.mar", folder)
    return folder


@pytest.fixture(scope="module")
def stack(store, tmp_path_factory):
    with Stack(tmp_path_factory.mktemp("stack"), store) as stack:
        yield stack


def failed(result):
    """What did not pass, but for the speed of this machine."""
    return [
        check
        for check in result.checks
        if not check.passed and not any(word in check.what for word in NOT_HERE)
    ]


def test_chaos_through_nginx(store, tmp_path):
    with Stack(tmp_path / "run", store) as stack:
        result = run(stack, Options(seed=1, seconds=SECONDS, via="nginx"), print)
    result = replace(result, ready_p99_ms=NOISY_MS)
    summary = report.summarize(result)
    assert not summary.problems, report.table(result, summary)
    assert stack.orphans() == []


def test_unfinished_uploads(stack):
    assert failed(connections.slow_uploads(stack, seconds=10.0)) == []


def test_idle_sockets(stack):
    assert failed(connections.idle_sockets(stack, count=3000, seconds=6.0)) == []


def test_many_calls_on_one_grpc_connection(stack):
    assert failed(connections.grpc_flood(stack, seconds=10.0)) == []


def test_hostile_json(stack):
    routes = ("/predictions/t5-small", "/v2/models/resnet-50/infer", "/model")
    assert failed(bodies.hostile_json(stack, copies=4, routes=routes)) == []


def test_long_batches(stack):
    assert failed(overload.long_batches(stack, seconds=15.0)) == []


def test_the_end_under_load(stack):
    """The last one: it ends the server."""
    assert failed(lifecycle.sigterm(stack, clients=6, before=4.0)) == []
