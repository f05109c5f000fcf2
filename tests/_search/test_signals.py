"""Ctrl-C once, Ctrl-C twice, and a machine that asks processes to end."""

import os
import signal
import threading

import pytest
from joblib import Parallel, delayed

from sknas._search.signals import Signals, Stop

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")


@pytest.fixture(autouse=True)
def usual():
    """The handlers that Python sets, whoever runs the tests."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


def test_the_first_is_an_interrupt_that_can_be_held():
    with Signals(False), pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_passes_all_that_holds_the_first():
    done = []
    with pytest.raises(KeyboardInterrupt) as caught, Signals(False):
        for _ in range(3):  # as a search, a choice and a refit hold it
            try:
                send(signal.SIGINT)
                signal.sigtimedwait([], 1)
            except KeyboardInterrupt:
                done.append("held")
    assert done == ["held"]
    assert type(caught.value) is KeyboardInterrupt
    assert not issubclass(Stop, KeyboardInterrupt | Exception)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_each_fit_counts_anew():
    for _ in range(2):
        with Signals(False), pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_a_machine_that_ends_is_heard_where_the_search_is_kept():
    with pytest.raises(SystemExit) as caught, Signals(True):
        send(signal.SIGTERM)
        signal.sigtimedwait([], 1)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def seen_by_a_worker():
    with Signals(True):
        return signal.getsignal(signal.SIGTERM)


def test_a_worker_leaves_it_to_the_system():
    (found,) = Parallel(2)([delayed(seen_by_a_worker)()])
    assert found == signal.SIG_DFL


def test_without_a_checkpoint_it_is_left_to_the_system():
    with Signals(False):
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_handlers_of_others_stay(number):
    heard = []
    signal.signal(number, lambda *told: heard.append(told[0]))
    with Signals(True):
        send(number)
        signal.sigtimedwait([], 0.1)
    assert heard == [number]


def test_other_threads_leave_signals_alone():
    found = []

    def look():
        with Signals(True):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_errors_pass():
    with pytest.raises(ZeroDivisionError), Signals(True):
        raise ZeroDivisionError
