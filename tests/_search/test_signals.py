"""Signals during a search: one Ctrl-C, a second Ctrl-C, and SIGTERM."""

import os
import signal
import threading

import pytest
from joblib import Parallel, delayed

from sknas._search.signals import Signals, Stop

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")


@pytest.fixture(autouse=True)
def default_handlers():
    """Set the default handlers of Python, which test runners may replace."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


def test_first_ctrl_c_raises_keyboard_interrupt():
    with Signals(False), pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_second_ctrl_c_is_not_caught_by_handlers_of_the_first():
    done = []
    with pytest.raises(KeyboardInterrupt) as caught, Signals(False):
        for _ in range(3):  # search, ensemble selection and refit each catch it
            try:
                send(signal.SIGINT)
                signal.sigtimedwait([], 1)
            except KeyboardInterrupt:
                done.append("caught")
    assert done == ["caught"]
    assert type(caught.value) is KeyboardInterrupt
    assert not issubclass(Stop, KeyboardInterrupt | Exception)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_each_fit_counts_its_own_signals():
    for _ in range(2):
        with Signals(False), pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_sigterm_exits_if_there_is_a_checkpoint():
    with pytest.raises(SystemExit) as caught, Signals(True):
        send(signal.SIGTERM)
        signal.sigtimedwait([], 1)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def handler_in_a_worker():
    with Signals(True):
        return signal.getsignal(signal.SIGTERM)


def test_workers_have_the_default_handler_of_sigterm():
    (found,) = Parallel(2)([delayed(handler_in_a_worker)()])
    assert found == signal.SIG_DFL


def test_sigterm_has_the_default_handler_without_a_checkpoint():
    with Signals(False):
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_custom_handlers_are_not_replaced(number):
    received = []
    signal.signal(number, lambda *options: received.append(options[0]))
    with Signals(True):
        send(number)
        signal.sigtimedwait([], 0.1)
    assert received == [number]


def test_other_threads_do_not_set_handlers():
    found = []

    def inspect():
        with Signals(True):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inspect)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_errors_are_raised():
    with pytest.raises(ZeroDivisionError), Signals(True):
        raise ZeroDivisionError
