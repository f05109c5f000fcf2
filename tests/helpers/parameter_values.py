"""Values of parameters, of which the fingerprint holds a text.

Its own module, so that another process can import it or run it as a script.
"""

import functools
import re
from collections import Counter, OrderedDict, defaultdict, deque
from enum import Enum
from operator import itemgetter
from types import MappingProxyType, MethodType

import numpy as np
import pandas as pd
import torch
from fits import prepare_fit
from sklearn.metrics import accuracy_score, fbeta_score, make_scorer
from sklearn.model_selection import KFold
from sklearn.neighbors import KNeighborsClassifier

from sknas import NASClassifier
from sknas._checkpoint.fingerprint import fingerprint
from sknas.spaces import TableSpace
from sknas.strategies import GradientStrategy


class Colour(Enum):
    RED, BLUE = 1, 2


class Default(defaultdict):
    pass


class Ordered(OrderedDict):
    pass


class Counted(Counter):
    pass


class Judge:
    words = frozenset({"one", "two", "three"})

    def __init__(self, k):
        self.k = k

    def good(self, y, kind=object, other=lambda y: y in {"five", "six", "seven"}):
        return [super().__repr__(), kind, other, self.k]

    def __call__(self, estimator, X, y):
        return self.good(y)


def with_attribute(value, k):
    value.k = k
    return value


def closure_of(k):
    def scorer(estimator, X, y):
        return k * (estimator.predict(X) == y).mean()

    return scorer


def recursion_of(k):
    def scorer(estimator, X, y):
        return scorer(estimator, X, y[k:]) if len(y) else 0.0

    return scorer


def class_of(k):
    class Made(TableSpace):
        n_hidden = np.arange(k)

        def build(self, architecture, task):
            return k

    return Made


def values(k):
    """Return values by name, which differ between a `k` of 1 and one of 2."""
    return {
        "array": np.arange(3) + k,
        "array of one value": np.array(k),
        "masked array": np.ma.array([1, 2], mask=[k == 1, False], fill_value=0),
        "array of objects": np.array(["one", f"{k}"], dtype=object),
        "number of NumPy": np.float32(k),
        "table": pd.DataFrame({"a": [k, 0], "b": ["x", "y"]}),
        "tensor": torch.full((3,), k),
        "network": torch.nn.PReLU(init=k / 4),
        "random state": np.random.RandomState(k),
        "generator": np.random.default_rng(k),
        "set": {"one", "two", "three", f"{k}"},
        "dict": {"a": {k: [None, (True, 1.5)]}},
        "order of a dict": {k: 0, 3 - k: 0},
        "type of a key": {1: 0} if k == 1 else {"1": 0},
        "ordered dict": OrderedDict(a=k),
        "subclass of an ordered dict": Ordered(a=k),
        "default dict": Default(int, a=k),
        "counter": Counted(a=k),
        "read-only dict": MappingProxyType({"a": k}),
        "keys": {"a": 0, k: 0}.keys(),
        "deque": deque([k], 3),
        "attribute that is a deque": with_attribute(Judge(0), deque([k])),
        "partial of a deque": functools.partial(max, deque([k])),
        "enum": Colour(k),
        "pattern": re.compile(f"{k}"),
        "splitter": KFold(k + 1),
        "scorer": make_scorer(fbeta_score, beta=k),
        "fitted estimator": KNeighborsClassifier(1).fit([[0], [k]], [0, 1]),
        "strategy": GradientStrategy(n_epochs=k),
        "space": TableSpace(depth=(1, k)),
        "attribute of a space": with_attribute(TableSpace(), k),
        "object": Judge(k),
        "bound method": Judge(k).good,
        "bound function": MethodType(closure_of(k), Judge(0)),
        "another method": getattr(Judge(0), ["good", "__call__"][k - 1]),
        "bound method of a library": {1: k}.get,
        "partial": functools.partial(closure_of(0), k),
        "getter": itemgetter(k),
        "function of a library": [np.mean, np.sum][k - 1],
        "function in C": [np.add, np.subtract][k - 1],
        "class of a library": [torch.nn.Linear, torch.nn.Bilinear][k - 1],
        "closure": closure_of(k),
        "closure of itself": recursion_of(k),
        "default": lambda estimator, X, y, n=k: n,
        "default by name": lambda estimator, X, y, *, n=k: n,
        "decorated by a library": torch.no_grad()(closure_of(k)),
        "name of a library": functools.wraps(accuracy_score)(closure_of(k)),
        "class": class_of(k),
        "space of a class": class_of(k)(),
        # These two stand on one line.
        "line": [lambda a: a["n"] < 1_000, lambda a: a["n"] < 2_000][k - 1],
    }


@functools.cache
def data():
    return prepare_fit(NASClassifier(), np.eye(8), np.arange(8) % 2)[1]


def text(value):
    """Return the entry of a parameter with this value."""
    model = NASClassifier(scoring=value)
    return fingerprint(model, data().rows, data().target.classes_, "cpu")["scoring"]


def texts():
    """Return the entries of all values by name."""
    return {name: text(value) for name, value in values(1).items()}
