"""How long a restart waits, and after how many it is given up."""

from serving.restart_policy import RestartPolicy


def test_delays_grow_until_the_limit_and_start_anew_after_the_window():
    now = [0.0]
    policy = RestartPolicy((0.0, 1.0, 5.0), max_restarts=4, window=100.0, clock=lambda: now[0])
    assert [policy.next_delay() for _ in range(5)] == [0.0, 1.0, 5.0, 5.0, None]
    assert policy.longest_delay == 5.0
    now[0] = 101.0
    assert policy.next_delay() == 0.0


def test_a_restart_now_and_then_never_reaches_the_limit():
    now = [0.0]
    policy = RestartPolicy((0.0, 1.0), max_restarts=2, window=100.0, clock=lambda: now[0])
    for _ in range(20):
        assert policy.next_delay() is not None
        now[0] += 60.0
