"""Training restores the global state of torch."""

import threading
import weakref

import pytest
import torch

from sknas._training.isolation import isolated, one_thread, run_with_memory_retry
from sknas._training.seeds import set_seed


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_one_thread_restores_the_number_of_threads(two_threads):
    with one_thread():
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert torch.get_num_threads() == 2


def test_overlapping_threads_restore_the_number_the_first_one_found(two_threads):
    """The other thread enters before this one leaves, and leaves after it."""
    is_inside, may_leave, seen = threading.Event(), threading.Event(), []

    def work():
        torch.set_num_threads(2)
        with one_thread():
            seen.append(torch.get_num_threads())
            is_inside.set()
            may_leave.wait(10)
        seen.append(torch.get_num_threads())

    other = threading.Thread(target=work)
    with one_thread():
        other.start()
        assert is_inside.wait(10)
    may_leave.set()
    other.join(10)
    assert seen == [1, 2]
    assert torch.get_num_threads() == 2


def test_isolated_work_restores_the_state_of_torch():
    torch.manual_seed(5)
    torch.set_default_dtype(torch.float64)
    try:
        state = torch.get_rng_state()
        with pytest.raises(KeyError), torch.no_grad(), isolated(1, "cpu"):
            assert torch.is_grad_enabled()
            assert torch.get_default_dtype() == torch.float32
            first = torch.rand(3)
            raise KeyError
        assert torch.equal(state, torch.get_rng_state())
        assert torch.get_default_dtype() == torch.float64
        with isolated(1, "cpu"):
            assert torch.equal(torch.rand(3), first)
    finally:
        torch.set_default_dtype(torch.float32)


def test_no_other_device_is_seeded(monkeypatch):
    def seeded(*arguments):
        raise AssertionError("another device was seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed", seeded)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded)
    with isolated(7, "cpu"):
        first = torch.rand(3)
        set_seed(7, "cpu")
        assert torch.equal(torch.rand(3), first)
    monkeypatch.undo()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        assert torch.equal(torch.rand(3), first)


# ------------------------------------------------------------------------ memory retry

OUT_OF_MEMORY_ERRORS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
]


def failing(error):
    def attempt():
        raise error

    return attempt


def test_the_first_attempt_that_fits_gives_the_result():
    assert run_with_memory_retry([lambda: 1, failing(ValueError())], "cpu") == 1
    attempts = [*map(failing, OUT_OF_MEMORY_ERRORS), lambda: 2]
    assert run_with_memory_retry(attempts, "cpu") == 2


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()], ids=repr)
def test_other_errors_are_not_retried(error):
    with pytest.raises(type(error)):
        run_with_memory_retry([failing(error), lambda: 1], "cpu")


@pytest.mark.parametrize("error", OUT_OF_MEMORY_ERRORS, ids=repr)
def test_the_last_attempt_raises_its_error(error):
    with pytest.raises(type(error)) as raised:
        run_with_memory_retry([failing(MemoryError()), failing(error)], "cpu")
    assert raised.value is error


def test_tensors_of_a_failed_attempt_are_freed_before_the_next_one():
    held = []

    def attempt():
        tensor = torch.zeros(3)
        held.append(weakref.ref(tensor))
        raise MemoryError

    def is_freed():
        return held[0]() is None

    assert run_with_memory_retry([attempt, is_freed], "cpu")
