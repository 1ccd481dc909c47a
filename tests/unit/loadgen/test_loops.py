"""The load loops against a server with a known speed. The thresholds also hold on a busy machine."""

import pytest

from tests.unit.loadgen.fixed_rate_server import FixedRateServer
from torchserve_models.loadgen import (
    ClosedLoop,
    DrainedClosedLoop,
    LoadGenerator,
    LoadJob,
    OpenLoop,
    Target,
    percentile,
    post_request,
    run_job,
    wait_until_answering,
)
from torchserve_models.loadgen.loops import find_window


def make_target(server, path="/", timeout=10.0):
    requests = (post_request(path, b"one", "text/plain"), post_request(path, b"two", "text/plain"))
    return Target("127.0.0.1", server.port, requests, b'"label"', 5, timeout=timeout)


def test_closed_loop_measures_the_rate_and_the_queue():
    with FixedRateServer(0.01) as server:
        one = run_job(LoadJob(make_target(server), ClosedLoop(1), seconds=0.4, ramp_s=0.1)).summary()
        many = run_job(LoadJob(make_target(server), ClosedLoop(8), seconds=0.4, ramp_s=0.1)).summary()
    assert 0 < one.requests_per_second <= 103  # at most 100/s, for any number of clients
    assert 0 < many.requests_per_second <= 103
    assert one.p50 >= 10
    assert many.p50 > 3 * one.p50
    assert one.errors == many.errors == {}


@pytest.mark.parametrize("end", [3.0, 3.2, 3.39, 3.41])
def test_window_contains_whole_batches(end):
    """A batch of eight every 0.4 s; windows of a fixed length would contain 7 or 8 batches."""
    answers = [0.4 * batch + 0.001 * index for batch in range(1, 12) for index in range(8)]
    first, last = find_window(answers, 1.0, end)
    assert first >= 1.0
    assert last >= end
    rate = sum(first < now <= last for now in answers) / (last - first)
    assert rate == pytest.approx(20)


@pytest.mark.parametrize(
    ("answers", "window"),
    [([], (1.0, 4.0)), ([0.5, 2.0], (2.0, 4.0)), ([0.5, 5.5], (1.0, 5.5)), ([3.0, 4.5, 5.0], (3.0, 4.5))],
    ids=["no answer", "none after the end", "none before the end", "both"],
)
def test_window_without_answers_has_its_full_length(answers, window):
    assert find_window(answers, 1.0, 4.0) == window


def test_ramp_is_discarded():
    with FixedRateServer(0.01) as server:
        measured = run_job(LoadJob(make_target(server), ClosedLoop(2), seconds=0.2, ramp_s=0.3))
        assert measured.completed == len(measured.latencies) <= 22
        assert len(server.received) > 1.3 * measured.completed


def make_text_target(server):
    requests = tuple(post_request("/", text, "text/plain") for text in (b"one", b"two", b"three"))
    return Target("127.0.0.1", server.port, requests, b'"label"', (5, 6, 5), slack=1, tokens=(10, 20, 30))


def test_drained_loop_counts_until_the_last_answer():
    with FixedRateServer(0.03) as server:
        few = run_job(LoadJob(make_text_target(server), DrainedClosedLoop(4), seconds=0.01))
        more = run_job(LoadJob(make_text_target(server), DrainedClosedLoop(2, 7), seconds=0.01))
        timed = run_job(LoadJob(make_text_target(server), DrainedClosedLoop(2), seconds=0.2))
    assert (few.completed, few.tokens) == (4, 70)
    assert len(few.latencies) == 4  # all requests are first requests of clients
    assert few.seconds >= 4 * 0.03
    assert few.seconds == pytest.approx(max(few.latencies), abs=0.05)
    assert (more.completed, more.tokens) == (7, 130)
    assert len(more.latencies) == len(more.per_token) == 5  # without the first request of each client
    assert min(more.latencies) > 0.03
    assert timed.seconds >= 0.2
    assert timed.completed * 0.03 <= timed.seconds
    assert few.errors == more.errors == timed.errors == {}


def test_errors_are_not_counted_as_answers_in_drained_loop():
    with FixedRateServer(0.005) as server:
        target = Target(
            "127.0.0.1", server.port, (post_request("/busy", b"", "text/plain"),), b"x", 1, tokens=(5,)
        )
        measured = run_job(LoadJob(target, DrainedClosedLoop(1, min_requests=3), seconds=0.01))
    assert (measured.completed, measured.tokens, measured.errors["HTTP 503"]) == (0, 0, 3)
    assert measured.summary().tokens_per_second == 0


def test_each_request_has_a_separate_correct_answer():
    target = Target("host", 1, (b"", b""), b"x", (3, 5), slack=1)
    problems = [target.find_problem(0, b"x" * count) for count in (1, 2, 3, 4)]
    assert problems == ["wrong answer", None, None, "wrong answer"]
    assert target.find_problem(1, b"xxx") == "wrong answer"


def test_clients_keep_connections_and_send_all_requests_in_turn():
    with FixedRateServer(0.005, lanes=4) as server:
        run_job(LoadJob(make_target(server), ClosedLoop(4), seconds=0.15, ramp_s=0.0))
        assert server.connections == 4
        assert abs(server.received.count(b"one") - server.received.count(b"two")) <= 1


@pytest.mark.parametrize("path", ["/", "/chunked", "/close"])
def test_correct_answer_in_every_transfer_form_is_counted(path):
    with FixedRateServer(0.002) as server:
        measured = run_job(LoadJob(make_target(server, path), ClosedLoop(2), seconds=0.1, ramp_s=0.0))
    assert measured.completed > 0
    assert measured.errors == {}


@pytest.mark.parametrize(
    ("path", "kind"), [("/busy", "HTTP 503"), ("/wrong", "wrong answer"), ("/gone", "connection lost")]
)
def test_errors_are_counted_by_kind_and_not_as_answers(path, kind):
    with FixedRateServer(0.002) as server:
        measured = run_job(LoadJob(make_target(server, path), ClosedLoop(2), seconds=0.1, ramp_s=0.0))
    assert measured.completed == 0
    assert list(measured.errors) == [kind]
    assert measured.errors[kind] == len(measured.failures) > 0


def test_hanging_server_is_a_timeout_and_missing_server_a_lost_connection():
    with FixedRateServer(5.0) as server:
        hanging = run_job(LoadJob(make_target(server, timeout=0.15), ClosedLoop(2), seconds=0.05, ramp_s=0.0))
    missing = run_job(LoadJob(make_target(server), ClosedLoop(1), seconds=0.05, ramp_s=0.0))
    assert hanging.errors == {"timeout": 2}  # although they are reported after the end of the window
    assert set(missing.errors) == {"connection lost"}


@pytest.mark.full
def test_open_loop_shows_the_queue_that_a_closed_loop_hides():
    with FixedRateServer(0.02) as server:
        calm = run_job(LoadJob(make_target(server), OpenLoop(10.0), seconds=0.6, ramp_s=0.0)).summary()
        overload = run_job(LoadJob(make_target(server), OpenLoop(150.0), seconds=0.5, ramp_s=0.0)).summary()
    assert overload.requests_per_second <= 52
    assert overload.p50 > 3 * calm.p50  # most requests wait for many others
    assert overload.samples > 50  # and all of them are measured
    assert overload.errors == {}


def test_arrivals_are_poisson_and_repeatable():
    arrivals = list(OpenLoop(1000.0, seed=3).arrivals(10.0))
    gaps = [later - earlier for earlier, later in zip([0.0, *arrivals], arrivals, strict=False)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(1 / 1000, rel=0.05)
    assert deviation == pytest.approx(mean, rel=0.05)  # as in an exponential distribution
    assert percentile(gaps, 0.5) == pytest.approx(mean * 0.693, rel=0.05)
    assert arrivals == list(OpenLoop(1000.0, seed=3).arrivals(10.0))
    assert arrivals != list(OpenLoop(1000.0, seed=4).arrivals(10.0))


def test_processes_share_the_clients_and_their_results_are_merged():
    with FixedRateServer(0.01, lanes=3) as server, LoadGenerator(2) as generator:
        closed = generator.closed_loop(make_target(server), 3, seconds=0.2, ramp_s=0.1)
        offered = generator.open_loop(make_target(server), 60.0, seconds=0.5, ramp_s=0.0)
        assert server.connections >= 3
    assert closed.completed == len(closed.latencies) > 3
    assert closed.seconds > 0
    assert 10 < len(offered.latencies) < 60
    assert generator.max_cpu > 0


def test_waiting_ends_with_a_correct_answer_a_failure_or_the_timeout():
    with FixedRateServer(0.001) as server:
        wait_until_answering(make_target(server), lambda: "failed", timeout_s=0.0)
        with pytest.raises(TimeoutError, match="wrong answer"):
            wait_until_answering(make_target(server, "/wrong"), lambda: None, timeout_s=0.0)
        with pytest.raises(ConnectionError, match="out of memory"):
            wait_until_answering(make_target(server, "/wrong"), lambda: "out of memory", timeout_s=0.0)
