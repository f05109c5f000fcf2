"""Fitted estimators in files that run no code."""

import pickle

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from torch import nn

from sknas import NASClassifier, NASRegressor
from sknas.nets._arrays import put_back, taken_out
from sknas.spaces import CellSpace, ImageSpace, TableSpace

TINY = {"max_trials": 2, "max_epochs": 2, "n_jobs": 1, "random_state": 0}
RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "number": RNG.normal(size=40),
        "word": RNG.choice([f"w{place}" for place in range(12)], 40),
        "flag": RNG.random(40) < 0.5,
        "gaps": pd.array([1, 2, None, 4] * 10, dtype="Int64"),
    }
)
IMAGES = RNG.random((24, 8, 8, 3))
CLASSES, VALUES = np.array(["no", "yes"] * 20), RNG.normal(size=(40, 2))
LABELS = RNG.integers(0, 2, (40, 3))
PLAIN = TableSpace(
    activation=("parametric-mish",), normalisation=("batch",), depth=(2, 2)
)
ORIGINS = ("sknas.", "sklearn.", "skorch.", "torch.", "collections.deque")

FITS = {
    "classes": (NASClassifier(**TINY), TABLE, CLASSES),
    "labels": (NASClassifier(search_space=PLAIN, **TINY), TABLE, LABELS),
    "values": (NASRegressor(trainer="skorch", **TINY), TABLE, VALUES),
    "one network": (NASRegressor(ensemble_size=1, **TINY), TABLE, VALUES[:, 0]),
    "gradient": (NASClassifier(strategy="gradient", **TINY), TABLE, CLASSES),
    "images": (NASClassifier(search_space=ImageSpace(), **TINY), IMAGES, CLASSES[:24]),
    "cells": (
        NASClassifier(search_space=CellSpace(cells=(3,), channels=(8,)), **TINY),
        IMAGES,
        CLASSES[:24],
    ),
}


@pytest.fixture(scope="module", params=FITS)
def fitted(request):
    model, X, y = FITS[request.param]
    return model.fit(X, y), X


def answers(model, X):
    return getattr(model, "predict_proba", model.predict)(X)


def test_skops_keeps_a_fitted_estimator(fitted):
    model, X = fitted
    content = skops.io.dumps(model)
    types = skops.io.get_untrusted_types(data=content)
    assert [name for name in types if not name.startswith(ORIGINS)] == []
    loaded = skops.io.loads(content, trusted=types)
    np.testing.assert_array_equal(answers(loaded, X), answers(model, X))
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert loaded.best_architecture_ == model.best_architecture_
    assert len(loaded.history_) == len(model.history_)
    assert loaded.get_params()["max_trials"] == 2


def test_a_pickle_holds_the_same(fitted):
    model, X = fitted
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(answers(loaded, X), answers(model, X))
    for old, new in zip(modules(model), modules(loaded), strict=True):
        assert {n: t.stride() for n, t in old.state_dict().items()} == {
            n: t.stride() for n, t in new.state_dict().items()
        }


def modules(model):
    nets = [net for member in model.ensemble_.members for net in member.networks]
    return [part for net in nets for part in (net.module_, net.criterion_)]


def test_no_part_of_a_network_is_a_pickle_in_a_file_of_skops(fitted):
    model, _ = fitted
    state = model.network_.__getstate__()
    assert not any(isinstance(value, bytes) for value in state.values())
    assert state.keys().isdisjoint({"module", "module_", "criterion", "criterion_"})
    loaded = pickle.loads(pickle.dumps(model.network_))
    assert loaded.module is loaded.module_ and loaded.criterion is loaded.criterion_


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.first.bias.requires_grad_(False)
        self.register_buffer("step", torch.tensor(2), persistent=False)
        self.register_buffer("nothing", None)

    def forward(self, x):
        return self.second(self.first(x)) * self.step


def test_a_network_without_its_values_gets_them_back():
    module = Tied()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    shell, values = taken_out(module)
    assert [value.array.shape for value in values] == [(3, 3), (3,), ()]
    assert shell.first.weight == shell.second.weight == 0
    put_back(shell, values)
    assert shell.first.weight is shell.second.weight is not module.first.weight
    assert shell.first.weight.requires_grad and not shell.first.bias.requires_grad
    assert shell.nothing is None and isinstance(shell.first.bias, nn.Parameter)
    x = torch.ones(2, 3)
    torch.testing.assert_close(shell(x), module(x), rtol=0, atol=0)
    torch.testing.assert_close(dict(module.state_dict()), before)  # it is unchanged
