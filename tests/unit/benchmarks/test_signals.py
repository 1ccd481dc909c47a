"""What signals do to a run."""

import os
import signal

import pytest

from benchmarks.signals import ENDING, interrupt_on_all, undisturbed


@pytest.fixture(autouse=True)
def as_before():
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_it_is_ended_but_not_while_it_cleans_up(number):
    interrupt_on_all()
    with undisturbed():
        os.kill(os.getpid(), number)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
