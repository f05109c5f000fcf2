"""The fingerprint of a search tells it apart from searches with other trials."""

import functools
import importlib
import json
import os
import subprocess
import sys
from abc import ABCMeta
from importlib.metadata import version
from threading import Lock
from weakref import WeakKeyDictionary

import cloudpickle
import numpy as np
import pytest
import torch
from fits import prepare_fit
from parameter_values import text, texts, values

from sknas import NASClassifier
from sknas._checkpoint import fingerprint
from sknas.exceptions import InvalidParameterError
from sknas.spaces import TableSpace

X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
Y = np.arange(60) % 7 % 3  # classes of different sizes


def fingerprint_of(X, y, sample_weight=None, groups=None):
    model = NASClassifier(cv=2, random_state=0)
    _, data = prepare_fit(model, X, y, sample_weight, groups)
    return fingerprint.fingerprint(model, data.rows, data.target.classes_, "cpu")


def test_fingerprints_of_different_data_differ():
    def differing(*other):
        here, there = fingerprint_of(X, Y), fingerprint_of(*other)
        return {name for name in here if here[name] != there[name]}

    assert differing(X.copy(), Y.tolist()) == set()
    assert differing(X[::-1], Y[::-1]) == set()  # the order of rows does not matter
    assert differing(X * np.float32(1.001), Y) == {"X", "rows"}
    assert differing(X, 2 - Y) == {"y", "rows"}
    assert differing(X, Y + 1) == {"classes"}  # a scorer may refer to a class by name
    assert "rows" in differing(X, np.roll(Y, 1))  # the same values in other rows
    assert differing(X, Y, np.linspace(1, 2, len(Y))) == {"sample_weight", "rows"}
    assert "groups" in differing(X, Y, None, np.arange(len(Y)) // 2)


def test_fingerprints_of_different_versions_differ(monkeypatch):
    usual = fingerprint_of(X, Y)
    for package in ("sknas", "torch", "scikit-learn", "numpy", "skorch"):
        assert f"{package} {version(package)}" in usual["versions"].split(", ")
    real = fingerprint.version
    for package in ("scikit-learn", "numpy", "skorch"):
        changed = {package: "0.0"}
        monkeypatch.setattr(
            fingerprint, "version", lambda name, c=changed: c.get(name, real(name))
        )
        assert fingerprint.differences(usual, fingerprint_of(X, Y)) == ["versions"]


# Values of parameters


@pytest.mark.parametrize("name", values(1))
def test_values_are_described_by_their_content(name):
    here, there = text(values(1)[name]), text(values(2)[name])
    assert here == text(values(1)[name])
    copy = cloudpickle.loads(cloudpickle.dumps(values(1)[name]))
    assert here == text(copy)  # as in a worker
    assert here != there
    assert "0x" not in here


def test_lists_and_tuples_are_the_same():
    assert text([1, ("a",)]) == text((1, ["a"]))


def test_a_memory_map_is_an_array(tmp_path):  # large arrays are, in a worker
    np.save(tmp_path / "k.npy", np.arange(3.0))
    assert text(np.load(tmp_path / "k.npy", mmap_mode="r")) == text(np.arange(3.0))


def test_code_of_libraries_is_described_by_name(monkeypatch):
    assert text(torch.nn.Linear) == "torch.nn.modules.linear.Linear"
    # An installed library that is not in the list.
    monkeypatch.setattr(fingerprint, "LIBRARIES", ())
    assert text(torch.nn.Linear) == "torch.nn.modules.linear.Linear"


HOLDERS = {
    "global": lambda k: scorer_of(using(""), k=k),
    "closure": lambda k: lambda estimator, X, y: k,
    "default": lambda k: lambda estimator, X, y, k=k: k,
    "default of a helper": lambda k: scorer_of(using("def h(k=k): 0", "h()"), k=k),
    "member": lambda k: type("Made", (), {"k": k}),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_values_that_code_uses_are_described_by_their_content(holder):
    one, same, other = (
        {name: text(HOLDERS[holder](value)) for name, value in values(k).items()}
        for k in (1, 1, 2)
    )
    assert one == same
    assert [name for name in one if one[name] == other[name]] == []


def test_values_that_hold_themselves_are_refused():
    k = []
    k.append(k)
    for hold in HOLDERS.values():
        with pytest.raises(InvalidParameterError, match="recursion"):
            text(hold(k))


class CachingSpace(TableSpace):
    @functools.cached_property
    def cached(self):
        return 1


def test_what_a_cached_property_holds_does_not_matter():
    space = CachingSpace()
    before = text(space)
    assert space.cached == vars(space)["cached"]
    assert text(space) == before
    space.other = 1
    assert text(space) != before


@pytest.mark.parametrize("hold", [lambda lock: lock, lambda lock: lambda y: lock])
def test_values_that_cannot_be_pickled_are_refused(hold):
    match = "The 'scoring' parameter of NASClassifier must be an object that can be"
    with pytest.raises(InvalidParameterError, match=match):
        text(hold(Lock()))


CHILD = """
import json, runpy, sys
import parameter_values
script = runpy.run_path(parameter_values.__file__, run_name="__main__")
json.dump([parameter_values.texts(), script["texts"]()], sys.stdout)
"""


@pytest.mark.process
def test_values_have_the_same_text_in_another_process():
    paths = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": paths}
    command = [sys.executable, "-c", CHILD]
    imported, script = json.loads(subprocess.check_output(command, env=environment))
    assert texts() == imported == script


# Code of the user


def scorer_of(code, **names):
    """Return the scorer that source code defines, as a notebook does."""
    space = {"__name__": "mine", **names}
    exec(code, space)
    return space["scorer"]


DECORATED = """
import functools
def decorated(function):
    @functools.wraps(function)
    def outer(*arguments):
        return {} * function(*arguments)
    return outer

@decorated
def scorer(estimator, X, y, k={}):
    return k
"""
CLASS = """
from abc import ABC
from functools import cached_property
def held(k):
    return lambda self: k
class Judge({}):
    {}
    def __call__(self, estimator, X, y):
        return super().__repr__()
scorer = Judge
"""


def function(body="return 1", parameters="estimator, X, y"):
    return f"def scorer({parameters}):\n  {body}"


def class_with(member="", base="ABC"):
    return CLASS.format(base, member)


def using(definition, expression="k"):
    return f"import numpy as np\n{definition}\n{function(f'return {expression}')}"


PAIRS = [
    (function("return 1"), function("return -1")),
    (function("return X.a"), function("return X.b")),
    (function("return [1 for _ in y]"), function("return [2 for _ in y]")),
    (function("return X in {'a', 'b'}"), function("return X in {'a', 'c'}")),
    (function("return X + y"), function("return X - y")),
    (function("return a", "*, a, b"), function("return b", "*, b, a")),
    (function("return a", "a, b"), function("return a", "a, *, b")),
    (function("return a", "*a"), function("return a", "**a")),
    (
        function("try: len(X); len(y)\n  except TypeError: return 0\n  return 1"),
        function("try: len(X)\n  except TypeError: return 0\n  len(y); return 1"),
    ),
    (DECORATED.format(1, 1), DECORATED.format(2, 1)),
    (DECORATED.format(1, 1), DECORATED.format(1, -1)),
    (class_with("_k = 1"), class_with("_k = 2")),
    (class_with("def __len__(_, k=1): ..."), class_with("def __len__(_, k=2): ...")),
    (class_with("m = property(held(1))"), class_with("m = property(held(2))")),
    (class_with("m = classmethod(held(1))"), class_with("m = classmethod(held(2))")),
    (class_with(base="int"), class_with(base="float")),
    (using("k = 1"), using("k = 2")),
    (using("k = 1", "[k for _ in y]"), using("k = 2", "[k for _ in y]")),
    (using("k = np.eye(2)"), using("k = np.eye(3)")),
    (
        using("k = lambda: 1", "(lambda: k())()"),
        using("k = lambda: 2", "(lambda: k())()"),
    ),
    (using("class k: n = 1", "k().n"), using("class k: n = 2", "k().n")),
    (using("k = lambda: scorer(0)"), using("k = lambda: scorer(1)")),
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_fingerprints_of_different_code_differ(one, other):
    here = scorer_of(one)
    assert text(here) == text(scorer_of(one))
    for module in ("__main__", None):
        assert text(here) == text(scorer_of(one, __name__=module))
    assert text(here) == text(cloudpickle.loads(cloudpickle.dumps(here)))
    assert text(here) != text(scorer_of(other))


MADE = "def make(k): return lambda e, X, y: k\nscorer = make({})"
LOCKED = "from threading import Lock; lock = Lock(); m = cached_property(held({}))"
NEXT_TO_A_LOCK = "from threading import Lock; lock = Lock(); k = {}"
LOCKED_DEFAULT = "from threading import Lock\ndef k(a={}, lock=Lock()): 0"
LIMITED = """
from threading import Lock
from weakref import WeakKeyDictionary
def limited(function, lock):
    return lambda: [lock, function]
k = limited(lambda: {}, Lock())
"""
DISPATCHED = """
from collections.abc import Mapping
from functools import singledispatch, singledispatchmethod
def h(a): 0
def m(self, a): 0
k = singledispatch(h)
k.register(Mapping, lambda a: {0})
class Made:
    m = singledispatchmethod(m)
    m.register(Mapping, lambda self, a: {0})
"""
CHAIN = "".join(f"def f{i}(): return f{i + 1}()\n" for i in range(1_000)) + "f1000 = {}"
REDUCED = "k = {}; __reduce__ = lambda self: (list, ())"


@pytest.mark.parametrize(
    "made",
    [
        lambda k: functools.lru_cache(values(k)["closure"]),
        lambda k: scorer_of(MADE.format(k), __name__="torch"),  # by a library
        lambda k: scorer_of(class_with(LOCKED.format(k))),
        lambda k: scorer_of(class_with(REDUCED.format(k)))(),
        lambda k: scorer_of(using(NEXT_TO_A_LOCK.format(k), "[lock, k]")),
        lambda k: scorer_of(using(LOCKED_DEFAULT.format(k))),
        lambda k: scorer_of(using(LIMITED.format(k))),
        lambda k: scorer_of(using(DISPATCHED.format(k))),
        lambda k: scorer_of(using(DISPATCHED.format(k), "Made()")),
        lambda k: scorer_of(using(CHAIN.format(k), "f0()")),
    ],
)
def test_code_inside_other_objects_is_described(made):
    assert text(made(1)) == text(made(1)) != text(made(2))


def test_calls_of_a_dispatched_helper_do_not_matter():
    scorer = scorer_of(using(DISPATCHED.format(1), "[k({}), Made().m({})]"))
    before = text(scorer)
    scorer(None, None, None)
    ABCMeta("Other", (), {}).register(int)  # ABCs of a process count these
    assert text(scorer) == before


def test_entries_of_a_cache_that_forgets_do_not_matter():
    # Python 3.13 keeps one in a singledispatchmethod.
    cache, key = WeakKeyDictionary(), type("Key", (), {})
    scorer = scorer_of(function("k[y] = 1; return len(k)"), k=cache)
    before = text(scorer)
    assert scorer(None, None, key) == 1
    assert text(scorer) == before


def test_comments_and_line_numbers_do_not_matter():
    code = "\n\n" + function("return 1  # the score")
    assert text(scorer_of(code)) == text(scorer_of(function("return 1")))


def test_globals_that_code_sets_or_does_not_use_do_not_matter():
    code = function("global k; k += 1; return y.mean() + helper")
    scorer = scorer_of(code, k=0, helper=1)
    before = text(scorer)
    scorer(None, None, np.ones(3))
    assert scorer.__globals__["k"] == 1
    assert text(scorer) == before
    assert text(scorer_of(code, k=0, helper=1, mean=2, __file__="here")) == before
    assert text(scorer_of(code, k=0, helper=2)) != before


def test_code_that_runs_is_described_not_its_edited_file(tmp_path, monkeypatch):
    path = tmp_path / "edited_later.py"
    path.write_text(function("return 1"))
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(path.stem)
    before = text(module.scorer)
    path.write_text(function("return 2 + len(y)"))
    assert text(module.scorer) == before


def test_an_empty_closure_cell_is_described():
    def scorer(estimator, X, y):
        return later(y)

    empty = text(scorer)

    def later(y):
        return 0.0

    assert empty != text(scorer)
