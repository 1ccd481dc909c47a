"""Terminating signals: their handler, and cleanups that they do not interrupt."""

import os
import signal

import pytest

from torchserve_models import signals


@pytest.fixture(autouse=True)
def _restore_handlers():
    handlers = {number: signal.getsignal(number) for number in signals.TERMINATING_SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", signals.TERMINATING_SIGNALS)
def test_signal_interrupts_a_command_but_not_its_cleanup(number):
    signals.handle_termination()
    with signals.ignore_termination():
        os.kill(os.getpid(), number)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)


def test_signal_calls_the_action_once():
    calls = []
    signals.handle_termination(lambda: calls.append("stop"))
    os.kill(os.getpid(), signal.SIGTERM)
    assert calls == ["stop"]


def test_ignored_signal_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals.handle_termination()
    with signals.ignore_termination():
        os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
