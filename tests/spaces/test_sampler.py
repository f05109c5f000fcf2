"""The sampler of architectures that were not proposed before."""

import numpy as np
import pytest

from sknas.spaces import Architecture, Categorical, DictSpace, UnseenSampler

SMALL = DictSpace(
    {
        "kind": ["a", "b"],
        "size": (1, 3),
        "only_b": Categorical([True, False], when=("kind", ["b"])),
    }
)  # 3 + 6 architectures


def sampler(space=SMALL, feasible=lambda architecture: True):
    return UnseenSampler(space, feasible, np.random.default_rng(0))


def keys(architectures):
    return [architecture.key for architecture in architectures]


def test_draw_returns_the_requested_number_of_distinct_architectures():
    drawn = sampler().draw(7)
    assert len(set(keys(drawn))) == len(drawn) == 7


def test_marked_architectures_are_never_drawn():
    unseen_sampler = sampler()
    seen = []
    for expected in (4, 4, 1, 0):
        new = unseen_sampler.draw(4)
        assert len(new) == expected
        unseen_sampler.mark(new)
        seen += keys(new)
    assert sorted(seen) == sorted(keys(SMALL.enumerate()))


def test_unmarked_architectures_are_drawn_again():
    unseen_sampler = sampler()
    assert set(keys(unseen_sampler.draw(9))) == set(keys(unseen_sampler.draw(9)))


def test_architectures_can_be_marked_by_key():
    unseen_sampler = sampler()
    unseen_sampler.mark_keys(keys(SMALL.enumerate())[1:])
    assert keys(unseen_sampler.draw(5)) == keys(SMALL.enumerate())[:1]


def test_marked_architectures_outside_the_space_have_no_neighbours():
    unseen_sampler = sampler(feasible=lambda architecture: False)
    outside = {"kind": "a", "size": 100}, {"other": 1}, {"kind": "a", "size": "b"}
    unseen_sampler.mark(Architecture(values) for values in outside)
    assert unseen_sampler.draw(3) == []


def test_only_feasible_architectures_are_drawn():
    unseen_sampler = sampler(feasible=lambda architecture: architecture["size"] == 2)
    drawn = unseen_sampler.draw(10)
    assert len(drawn) == 3 and all(a["size"] == 2 for a in drawn)


def test_a_single_feasible_architecture_is_found_in_a_finite_space():
    space = DictSpace({name: (0, 9) for name in "abcd"})
    needle = Architecture({"a": 3, "b": 1, "c": 4, "d": 1})
    unseen_sampler = sampler(space, lambda architecture: architecture == needle)
    assert unseen_sampler.draw(3) == [needle]


@pytest.mark.parametrize("n", [0, 1])
def test_a_space_of_one_architecture(n):
    assert len(sampler(DictSpace({"a": [1]})).draw(n)) == n


def test_draw_is_empty_if_an_infinite_space_has_no_feasible_architecture():
    unseen_sampler = sampler(DictSpace({"x": (0.0, 1.0)}), lambda architecture: False)
    assert unseen_sampler.draw(3) == []


def test_unseen_keeps_the_order_and_drops_repeats():
    unseen_sampler = sampler(feasible=lambda architecture: architecture["size"] < 3)
    listed = list(SMALL.enumerate())
    unseen_sampler.mark(listed[:1])
    assert keys(unseen_sampler.unseen([*listed[::-1], *listed])) == [
        key
        for a, key in zip(listed[::-1], keys(listed[::-1]), strict=True)
        if a["size"] < 3 and key != listed[0].key
    ]


def test_the_same_seed_draws_the_same_architectures():
    assert keys(sampler().draw(5)) == keys(sampler().draw(5))
