"""Drawing architectures that were not proposed before."""

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


def test_draws_are_different_and_as_many_as_asked_for():
    drawn = sampler().draw(7)
    assert len(set(keys(drawn))) == len(drawn) == 7


def test_what_is_marked_is_never_drawn_again():
    some = sampler()
    seen = []
    for expected in (4, 4, 1, 0):
        new = some.draw(4)
        assert len(new) == expected
        some.mark(new)
        seen += keys(new)
    assert sorted(seen) == sorted(keys(SMALL.enumerate()))


def test_what_is_only_drawn_may_be_drawn_again():
    some = sampler()
    assert set(keys(some.draw(9))) == set(keys(some.draw(9)))


def test_keys_mark_as_well():
    some = sampler()
    some.mark_keys(keys(SMALL.enumerate())[1:])
    assert keys(some.draw(5)) == keys(SMALL.enumerate())[:1]


def test_what_comes_from_elsewhere_has_no_neighbours():
    some = sampler(feasible=lambda architecture: False)
    strange = {"kind": "a", "size": 100}, {"other": 1}, {"kind": "a", "size": "b"}
    some.mark(Architecture(values) for values in strange)
    assert some.draw(3) == []


def test_only_what_is_feasible_is_drawn():
    some = sampler(feasible=lambda architecture: architecture["size"] == 2)
    drawn = some.draw(10)
    assert len(drawn) == 3 and all(a["size"] == 2 for a in drawn)


def test_a_needle_is_found_in_a_finite_space():
    space = DictSpace({name: (0, 9) for name in "abcd"})
    needle = Architecture({"a": 3, "b": 1, "c": 4, "d": 1})
    some = sampler(space, lambda architecture: architecture == needle)
    assert some.draw(3) == [needle]


@pytest.mark.parametrize("n", [0, 1])
def test_a_space_of_one_point(n):
    assert len(sampler(DictSpace({"a": [1]})).draw(n)) == n


def test_an_infinite_space_without_a_feasible_point_gives_up():
    some = sampler(DictSpace({"x": (0.0, 1.0)}), lambda architecture: False)
    assert some.draw(3) == []


def test_unseen_keeps_the_order_and_drops_repeats():
    some = sampler(feasible=lambda architecture: architecture["size"] < 3)
    listed = list(SMALL.enumerate())
    some.mark(listed[:1])
    assert keys(some.unseen([*listed[::-1], *listed])) == [
        key
        for a, key in zip(listed[::-1], keys(listed[::-1]), strict=True)
        if a["size"] < 3 and key != listed[0].key
    ]


def test_the_same_seed_draws_the_same():
    assert keys(sampler().draw(5)) == keys(sampler().draw(5))
