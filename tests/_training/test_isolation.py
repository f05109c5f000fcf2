"""torch is left as it was found."""

import threading

import pytest
import torch

from sknas._training.isolation import isolated, one_thread, set_seed


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_one_thread_and_then_as_many_as_before(two_threads):
    with one_thread():
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert torch.get_num_threads() == 2


def test_threads_that_overlap_leave_what_the_first_one_found(two_threads):
    """The other one enters before this one leaves, and leaves after it."""
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


def test_isolated_work_leaves_torch_as_it_was():
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
