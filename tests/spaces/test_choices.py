"""Choices: sampling, encoding, neighbours, conditions."""

import json
import math
import re

import numpy as np
import pytest

from sknas.exceptions import InvalidParameterError
from sknas.spaces import Categorical, Choice, Integer, Real, as_choice

CHOICES = {
    "words": Categorical(["a", "b", "c"]),
    "two words": Categorical(["a", "b"]),
    "one word": Categorical(["a"]),
    "flags": Categorical([False, True]),
    "sizes": Categorical([8, 16, 64, 128], ordered=True),
    "mixed": Categorical([None, 0, 1, 0.5, "1", True]),
    "weighted": Categorical(["a", "b", "c"], weights=[1, 2, 0]),
    "integer": Integer(-3, 4),
    "two integers": Integer(0, 1),
    "log integer": Integer(1, 10**9, log=True),
    "large integer": Integer(0, 10**12),
    "real": Real(-1.0, 2.5),
    "log real": Real(1e-5, 1e-1, log=True),
    "odd bounds": Real(1 / 3, 2 / 3),
    "bounds of ints": Real(0, 1),
}
FREE = [name for name, choice in CHOICES.items() if choice.n_values > 1]


def equal_and_same_type(one, other):
    """Return True if both are equal and of the same type."""
    return one == other and type(one) is type(other)


def drawn(choice, rng, n=60):
    return [choice.sample(rng) for _ in range(n)]


@pytest.mark.parametrize("name", CHOICES)
def test_samples_are_allowed_and_survive_json(name, rng):
    choice = CHOICES[name]
    for value in drawn(choice, rng):
        assert choice.contains(value)
        assert type(value) in (bool, int, float, str, type(None))
        assert equal_and_same_type(json.loads(json.dumps(value)), value)


@pytest.mark.parametrize("name", CHOICES)
def test_decode_inverts_encode(name, rng):
    choice = CHOICES[name]
    values = drawn(choice, rng)
    if choice.n_values < 100:
        values += list(choice.values())
    for value in values:
        code = choice.encode(value) if choice.n_columns else []
        assert len(code) == choice.n_columns
        assert all(0 <= number <= 1 for number in code)
        assert equal_and_same_type(choice.decode(np.array(code)), value)


@pytest.mark.parametrize("name", CHOICES)
def test_any_code_decodes_to_an_allowed_value(name, rng):
    choice = CHOICES[name]
    for code in rng.uniform(-0.5, 1.5, (50, choice.n_columns)):
        value = choice.decode(code)
        assert choice.contains(value) and type(value) in (
            bool,
            int,
            float,
            str,
            type(None),
        )


@pytest.mark.parametrize("name", FREE)
def test_a_neighbour_differs_from_the_value(name, rng):
    choice = CHOICES[name]
    values = drawn(choice, rng)
    if not isinstance(choice, Categorical):
        values += [choice.low, choice.high] * 20
    for value in values:
        near = choice.neighbour(value, rng)
        assert choice.contains(near) and not equal_and_same_type(near, value)


def test_neighbours_of_ordered_choices_are_near(rng):
    sizes = CHOICES["sizes"]
    assert {sizes.neighbour(16, rng) for _ in range(50)} == {8, 64}
    assert {sizes.neighbour(8, rng) for _ in range(50)} == {16}
    real = Real(0.0, 1.0)
    steps = [abs(real.neighbour(0.5, rng) - 0.5) for _ in range(300)]
    assert max(steps) < 0.5 and 0.03 < np.mean(steps) < 0.15


def test_all_other_values_are_neighbours_of_unordered_choices(rng):
    words = CHOICES["words"]
    assert {words.neighbour("a", rng) for _ in range(50)} == {"b", "c"}


@pytest.mark.parametrize(
    ("name", "n_values", "n_columns"),
    [
        ("words", 3, 3),
        ("two words", 2, 1),
        ("one word", 1, 0),
        ("sizes", 4, 1),
        ("integer", 8, 1),
        ("log integer", 10**9, 1),
        ("real", math.inf, 1),
    ],
)
def test_n_values_and_n_columns(name, n_values, n_columns):
    assert CHOICES[name].n_values == n_values
    assert CHOICES[name].n_columns == n_columns


def test_finite_choices_list_their_values():
    assert list(CHOICES["words"].values()) == ["a", "b", "c"]
    assert list(CHOICES["integer"].values()) == list(range(-3, 5))
    with pytest.raises(NotImplementedError, match="infinitely many values"):
        CHOICES["real"].values()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("words", "d"),
        ("flags", 1),
        ("flags", 0),
        ("sizes", 16.0),
        ("sizes", True),
        ("integer", 5),
        ("integer", 2.0),
        ("two integers", True),
        ("real", 3.0),
        ("real", math.nan),
        ("real", "1"),
        ("real", True),
        ("real", None),
    ],
)
def test_contains_rejects_values_of_wrong_type_or_range(name, value):
    assert not CHOICES[name].contains(value)


def test_linear_and_log_ranges_are_sampled_uniformly_on_their_scale(rng):
    counts = np.bincount([Integer(0, 3).sample(rng) for _ in range(4_000)])
    assert (np.abs(counts - 1_000) < 150).all()
    logs = [math.log10(Real(1e-4, 1.0, log=True).sample(rng)) for _ in range(2_000)]
    assert abs(np.mean(logs) + 2) < 0.1
    logs = [math.log2(Integer(1, 1024, log=True).sample(rng)) for _ in range(2_000)]
    assert abs(np.median(logs) - 5) < 0.5


def test_weights_are_prior_probabilities_up_to_a_factor(rng):
    counts = {"a": 0, "b": 0, "c": 0}
    for value in drawn(CHOICES["weighted"], rng, 3_000):
        counts[value] += 1
    assert counts["c"] == 0 and 0.4 < counts["a"] / counts["b"] < 0.6


@pytest.mark.parametrize("ordered", [False, True])
def test_values_of_weight_zero_are_never_neighbours(rng, ordered):
    choice = Categorical([1, 2, 3, 4, 5], ordered=ordered, weights=[0, 1, 0, 3, 0])
    near = {v: {choice.neighbour(v, rng) for _ in range(40)} for v in choice.values()}
    assert near[2] == {4} and near[4] == {2}
    assert near[3] == {2, 4}  # its other neighbours have weight zero
    assert near[1] == ({2} if ordered else {2, 4})
    assert near[5] == ({4} if ordered else {2, 4})
    assert all(choice.contains(value) for value in (1, 3, 5))
    assert set(drawn(choice, rng, 100)) == {2, 4}


@pytest.mark.parametrize("ordered", [False, True])
def test_can_change_is_true_if_another_value_can_be_drawn(rng, ordered):
    alone = Categorical([1, 4, 32], ordered=ordered, weights=[1, 0, 0])
    assert [alone.can_change(value) for value in (1, 4, 32)] == [False, True, True]
    assert alone.neighbour(1, rng) == 1 and alone.neighbour(32, rng) == 1
    for name, choice in CHOICES.items():
        assert choice.can_change(choice.sample(rng)) is (name in FREE)


def test_reals_are_rounded_to_six_digits(rng):
    for value in drawn(CHOICES["log real"], rng):
        assert float(f"{value:.6g}") == value


def test_numpy_options_and_bounds_become_python_values(rng):
    choice = Categorical(np.array([1, 2]))
    assert [type(value) for value in choice.values()] == [int, int]
    real = Real(np.float64(1 / 3), np.float64(2 / 3))
    assert type(real.decode(np.array([0.0]))) is float
    assert type(Integer(np.int64(1), np.int64(5)).sample(rng)) is int


def test_choice_is_active_if_its_condition_holds():
    choice = Real(0.0, 1.0, when=("optimizer", ("sgd", "momentum")))
    assert choice.is_active({"optimizer": "sgd"})
    assert not choice.is_active({"optimizer": "adamw"})
    assert not choice.is_active({})
    assert Real(0.0, 1.0).is_active({})


@pytest.mark.parametrize("name", CHOICES)
def test_repr_can_be_evaluated(name):
    choice = CHOICES[name]
    again = eval(repr(choice), {c.__name__: c for c in (Categorical, Integer, Real)})
    assert repr(again) == repr(choice)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Categorical([]), "A Categorical must have at least one option."),
        (
            lambda: Integer(3, 3),
            "The bounds of a range must ascend, got low=3 and high=3.",
        ),
        (
            lambda: Real(2.0, 1.0),
            "The bounds of a range must ascend, got low=2.0 and high=1.0.",
        ),
        (
            lambda: Real(0.0, 1.0, log=True),
            "The low bound of a log range must be > 0, got 0.0.",
        ),
        (
            lambda: Real(0.0, float("inf")),
            "be finite, and not too far apart for a float, got low=0.0 and high=inf",
        ),
        (lambda: Real(-1e308, 1e308), "must be finite, and not too far apart"),
        (lambda: Real(1e-300, 1e300, log=True), "must be finite, and not too far"),
        (lambda: Integer(1.5, 4.5), "must be whole and at most 2**53 in size, got"),
        (lambda: Integer(1, 10**20), "must be whole and at most 2**53 in size, got"),
        (lambda: Real(0, 10**400), "must be finite, and not too far apart"),
        (lambda: Real("a", "b"), "bounds of a range must be numbers, got low='a' and"),
        (lambda: Integer(None, 3), "bounds of a range must be numbers, got low=None"),
        (lambda: Real(False, True), "bounds of a range must be numbers, got low=Fals"),
        (
            lambda: Categorical(["a"], weights=3),
            "weights of a Categorical must be 1 nu",
        ),
        (lambda: Integer(0, 5, default=9), "default of a choice must be one of its"),
        (lambda: Categorical(["a"], default="b"), "must be one of its values, got 'b'"),
        (lambda: Categorical([1, 2], weights=[0, 0]), "must be 2 numbers >= 0, one"),
        (lambda: Categorical([1, 2], weights=[1]), "must be 2 numbers >= 0, one"),
        (lambda: Categorical([1, 2], weights=[1, -1]), "must be 2 numbers >= 0, one"),
    ],
)
def test_invalid_choices_raise_an_error(make, message):
    with pytest.raises(InvalidParameterError, match=re.escape(message)):
        make()


def test_ends_of_a_logarithmic_integer_are_drawn_like_their_neighbours(rng):
    drawn = [Integer(1, 8, log=True).sample(rng) for _ in range(4_000)]
    counts = np.bincount(drawn, minlength=9)[1:]
    assert (np.diff(counts) < 60).all() and counts[0] > 1.5 * counts[1]
    assert counts[-1] > 0.7 * counts[-2]


@pytest.mark.parametrize(
    ("choice", "default"),
    [
        (Integer(0, 10, default=np.int64(3)), 3),
        (Integer(8.0, 64.0, default=8), 8),
        (Real(0, 1, default=np.float64(0.25)), 0.25),
        (Categorical(np.array(["a", "b"]), default=np.str_("b")), "b"),
        (Categorical([1, 2], weights=np.array([1.0, 3.0]), default=np.int64(2)), 2),
        (Categorical(["a", None], default=None), None),
    ],
)
def test_numpy_defaults_become_python_values(choice, default):
    assert choice.default == default and type(choice.default) is type(default)
    assert "np." not in repr(choice)


def test_weights_may_be_huge(rng):
    choice = Categorical(["a", "b"], weights=[1e308, 1e308])
    assert {choice.sample(rng) for _ in range(50)} == {"a", "b"}


def test_samples_of_narrow_ranges_far_from_zero_are_distinct(rng):
    choice = Real(1e6, 1e6 + 2)
    assert len({choice.sample(rng) for _ in range(100)}) == 100


# ------------------------------------------------------------------------ short forms


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["a", "b"], Categorical(["a", "b"])),
        ([1], Categorical([1])),
        ((1, 5), Integer(1, 5)),
        ((1, 5, "log"), Integer(1, 5, log=True)),
        ((1, 5.0), Real(1, 5.0)),
        ((0.1, 5, "log"), Real(0.1, 5, log=True)),
        ((np.int64(1), np.int64(5)), Integer(1, 5)),
        ((np.float32(1), 5), Real(1.0, 5)),
        (Integer(1, 2, default=2), Integer(1, 2, default=2)),
    ],
    ids=str,
)
def test_short_forms_become_choices(value, expected):
    choice = as_choice("x", value)
    assert isinstance(choice, Choice) and repr(choice) == repr(expected)


@pytest.mark.parametrize(
    "value",
    [5, "ab", [], (), (1,), (1, "a"), (1, 2, 3), (1, 2, "exp"), (True, 3), None],
)
def test_invalid_short_forms_raise_an_error(value):
    message = (
        "The choice 'x' must be a list of values, (low, high), (low, high, 'log') or a "
        f"Choice, got {value!r}."
    )
    with pytest.raises(InvalidParameterError, match=re.escape(message)):
        as_choice("x", value)
