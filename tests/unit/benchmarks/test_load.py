"""The load generator against a server whose speed is known."""

import pytest

from benchmarks.generator import Generator
from benchmarks.load import Closed, Job, Open, Whole, run
from benchmarks.outcomes import percentile
from benchmarks.wire import Target, post
from tests.unit.benchmarks.slow_server import SlowServer


def target(server, path="/", timeout=10.0):
    requests = (post(path, b"one", "text/plain"), post(path, b"two", "text/plain"))
    return Target("127.0.0.1", server.port, requests, b'"label"', 5, timeout=timeout)


def test_a_closed_loop_finds_the_servers_rate_and_its_queue():
    with SlowServer(0.02) as server:
        one = run(Job(target(server), Closed(1), seconds=1.0, ramp=0.2)).summary()
        many = run(Job(target(server), Closed(8), seconds=1.0, ramp=0.2)).summary()
    # At most 50/s, whatever the number of clients; how far below depends on how busy this machine is.
    assert 20 < one.requests_per_second <= 51
    assert 20 < many.requests_per_second <= 51
    assert one.p50 >= 20
    assert many.p50 > 4 * one.p50
    assert one.errors == many.errors == {}


def texts(server):
    requests = tuple(post("/", text, "text/plain") for text in (b"one", b"two", b"three"))
    return Target("127.0.0.1", server.port, requests, b'"label"', (5, 6, 5), slack=1, tokens=(10, 20, 30))


def test_whole_answers_are_counted_until_the_last_one():
    with SlowServer(0.05) as server:
        few = run(Job(texts(server), Whole(4), seconds=0.01))
        more = run(Job(texts(server), Whole(2, least=7), seconds=0.01))
        seconds = run(Job(texts(server), Whole(2), seconds=0.4))
    assert (few.completed, few.tokens, len(few.latencies)) == (
        4,
        70,
        4,
    )  # nobody but the first of each client
    assert few.seconds >= 4 * 0.05
    assert few.seconds == pytest.approx(max(few.latencies), abs=0.05)
    assert (more.completed, more.tokens) == (7, 130)
    assert len(more.latencies) == len(more.per_token) == 5  # of those that came into a full queue
    assert min(more.latencies) > 0.05
    assert seconds.seconds >= 0.4
    assert seconds.completed * 0.05 <= seconds.seconds
    assert few.errors == more.errors == seconds.errors == {}


def test_whole_errors_are_no_answers():
    with SlowServer(0.01) as server:
        requests = (post("/busy", b"", "text/plain"),)
        whole = Target("127.0.0.1", server.port, requests, b"x", 1, tokens=(5,))
        outcome = run(Job(whole, Whole(1, least=3), seconds=0.01))
    assert (outcome.completed, outcome.tokens, outcome.errors["HTTP 503"]) == (0, 0, 3)
    assert outcome.summary().tokens_per_second == 0


def test_each_request_has_its_own_right_answer():
    wanted = Target("h", 1, (b"", b""), b"x", (3, 5), slack=1)
    assert [wanted.problem(0, b"x" * count) for count in (1, 2, 3, 4)] == [
        "wrong answer",
        None,
        None,
        "wrong answer",
    ]
    assert wanted.problem(1, b"xxx") == "wrong answer"


def test_clients_keep_their_connections_and_send_all_requests_in_turn():
    with SlowServer(0.01, lanes=4) as server:
        run(Job(target(server), Closed(4), seconds=0.3, ramp=0.0))
        assert server.connections == 4
        assert abs(server.received.count(b"one") - server.received.count(b"two")) <= 1


@pytest.mark.parametrize("path", ["/", "/chunked", "/close"])
def test_every_form_of_a_good_answer(path):
    with SlowServer(0.005) as server:
        outcome = run(Job(target(server, path), Closed(2), seconds=0.3, ramp=0.0))
    assert outcome.completed > 0
    assert outcome.errors == {}


@pytest.mark.parametrize(
    ("path", "kind"), [("/busy", "HTTP 503"), ("/wrong", "wrong answer"), ("/gone", "connection lost")]
)
def test_errors_are_counted_by_kind_and_are_no_answers(path, kind):
    with SlowServer(0.005) as server:
        outcome = run(Job(target(server, path), Closed(2), seconds=0.3, ramp=0.0))
    assert outcome.completed == 0
    assert list(outcome.errors) == [kind]
    assert outcome.errors[kind] == len(outcome.failures) > 0


def test_a_server_that_is_not_there_and_one_that_hangs():
    with SlowServer(5.0) as server:
        hanging = run(Job(target(server, timeout=0.1), Closed(1), seconds=0.3, ramp=0.0))
    gone = run(Job(target(server), Closed(1), seconds=0.1, ramp=0.0))
    assert set(hanging.errors) == {"timeout"}
    assert set(gone.errors) == {"connection lost"}


def test_an_error_counts_although_it_is_told_after_the_end():
    with SlowServer(5.0) as server:
        outcome = run(Job(target(server, timeout=0.3), Closed(2), seconds=0.1, ramp=0.0))
    assert outcome.errors == {"timeout": 2}


def test_an_open_loop_shows_the_queue_that_a_closed_one_hides():
    with SlowServer(0.02) as server:
        calm = run(Job(target(server), Open(10.0), seconds=1.5, ramp=0.0)).summary()
        beyond = run(Job(target(server), Open(150.0), seconds=1.0, ramp=0.0)).summary()
    assert beyond.requests_per_second <= 51
    assert beyond.p50 > 3 * calm.p50  # most have waited for many others
    assert beyond.samples > 100  # and every one of them counts
    assert beyond.errors == {}


def test_arrivals_are_poisson_and_the_same_for_the_same_seed():
    arrivals = list(Open(1000.0, seed=3).arrivals(10.0))
    gaps = [later - earlier for earlier, later in zip([0.0, *arrivals], arrivals, strict=False)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(1 / 1000, rel=0.05)
    assert deviation == pytest.approx(mean, rel=0.05)  # of an exponential distribution
    assert percentile(gaps, 0.5) == pytest.approx(mean * 0.693, rel=0.05)
    assert arrivals == list(Open(1000.0, seed=3).arrivals(10.0))
    assert arrivals != list(Open(1000.0, seed=4).arrivals(10.0))


def test_processes_share_the_clients_and_their_numbers_are_joined():
    with SlowServer(0.02, lanes=3) as server, Generator(2) as generator:
        outcome = generator.closed(target(server), 3, seconds=0.5, ramp=0.1)
        offered = generator.open(target(server), 40.0, seconds=1.0, ramp=0.0)
        assert server.connections >= 3
    assert outcome.completed == len(outcome.latencies) > 10
    assert outcome.seconds == 0.5
    assert 10 < len(offered.latencies) < 80
