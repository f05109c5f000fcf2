"""Fitted estimators are saved to files that run no code."""

import copy
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from sklearn.base import clone
from skorch.exceptions import DeviceWarning
from torch import nn

from sknas import NASClassifier, NASRegressor
from sknas._problem import TaskSpec
from sknas.spaces import CellSpace, ImageSpace, TableSpace
from sknas.trainers import to_inference_net

pytestmark = pytest.mark.xdist_group("saving")  # tests share fitted estimators
TINY = {"max_trials": 2, "max_epochs": 2, "n_jobs": 1, "random_state": 0}
RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "number": RNG.normal(size=40),
        "word": RNG.choice([f"w{index}" for index in range(12)], 40),
        "flag": RNG.random(40) < 0.5,
        "gaps": pd.array([1, 2, None, 4] * 10, dtype="Int64"),
        "when": pd.date_range("2024", periods=40, freq="37h", tz="Europe/Berlin"),
    }
)
IMAGES = RNG.random((24, 8, 8, 3))
CLASSES, VALUES = np.array(["no", "yes"] * 20), RNG.normal(size=(40, 2))
LABELS = RNG.integers(0, 2, (40, 3))
PLAIN = TableSpace(
    activation=("parametric-mish",), normalisation=("batch",), depth=(2, 2)
)
ORIGINS = ("sknas.", "sklearn.", "skorch.", "torch.")

ONE = TINY | {"ensemble_size": 1, "cv": 2}
FEW = {"stages": (1, 2), "blocks": (1,), "channels": (8,)}
FITS = {
    "classes": (NASClassifier(**TINY), TABLE, CLASSES),
    "labels": (NASClassifier(search_space=PLAIN, **TINY), TABLE, LABELS),
    "values": (NASRegressor(trainer="skorch", **TINY), TABLE, VALUES),
    "one network": (NASRegressor(ensemble_size=1, **TINY), TABLE, VALUES[:, 0]),
    "gradient": (NASClassifier(strategy="gradient", **TINY), TABLE, CLASSES),
    "images": (
        NASClassifier(search_space=ImageSpace(**FEW), **ONE),
        IMAGES,
        CLASSES[:24],
    ),
    "cells": (
        NASClassifier(search_space=CellSpace(cells=(1,), channels=(8,)), **ONE),
        IMAGES,
        CLASSES[:24],
    ),
}


@pytest.fixture(scope="module", params=FITS)
def fitted(request):
    model, X, y = FITS[request.param]
    return model.fit(X, y), X


def skops_copy(model, trusted=ORIGINS):
    """Return a copy by skops, which may load trusted types only."""
    content = skops.io.dumps(model)
    types = skops.io.get_untrusted_types(data=content)
    assert [name for name in types if not name.startswith(trusted)] == []
    return skops.io.loads(content, trusted=types)


def answers(model, X):
    return getattr(model, "predict_proba", model.predict)(X)


def test_skops_keeps_a_fitted_estimator(fitted):
    model, X = fitted
    loaded = skops_copy(model)
    np.testing.assert_array_equal(answers(loaded, X), answers(model, X))
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert loaded.best_architecture_ == model.best_architecture_
    assert len(loaded.history_) == len(model.history_)
    assert loaded.get_params()["max_trials"] == 2


@pytest.mark.parametrize("kind", [NASClassifier, NASRegressor])
@pytest.mark.parametrize("name", ["__init__", "fit", "predict", "score"])
def test_pickle_finds_methods(kind, name):
    method = getattr(kind, name)
    assert pickle.loads(pickle.dumps(method)) is method


def test_pickle_keeps_a_fitted_estimator(fitted):
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


def test_skops_file_contains_no_pickle(fitted):
    model, _ = fitted
    state = model.network_.__getstate__()
    assert not any(isinstance(value, bytes | nn.Module) for value in state.values())
    assert {type(array) for array in state["module_"].values()} == {np.ndarray}


class Networks(TableSpace):
    """Builds modules of a class that cannot be imported."""

    def build(self, architecture, task):
        class Local(nn.Linear):
            def forward(self, x):
                return super().forward(x)[None]

        return Local(task.n_columns, task.n_outputs)


@pytest.mark.parametrize("ensemble_size", [1, 2])
def test_classes_of_modules_need_not_be_importable(ensemble_size):
    X = RNG.normal(size=(40, 3))
    model = NASClassifier(
        Networks(), trainer="skorch", ensemble_size=ensemble_size, **TINY
    )
    loaded = skops_copy(model.fit(X, CLASSES), (*ORIGINS, f"{__name__}.Networks"))
    np.testing.assert_array_equal(answers(loaded, X), answers(model, X))


def make_net(kind, **architecture):
    """Return a net of a module of a user."""
    task = TaskSpec("binary", 2, 40)
    return to_inference_net(TableSpace(), architecture, task, build_module, kind=kind)


def build_module(space, architecture, task, kind):
    return kind()


class Tied(nn.Module):
    """One tensor under several names, and layers with lists of their tensors."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.first.bias.requires_grad_(False)
        self.listed = [self.first.weight]
        self.recurrent = nn.GRU(3, 3)
        self.register_buffer("step", torch.tensor(2), persistent=False)
        self.register_buffer("nothing", None)

    def forward(self, x):
        return self.recurrent(self.second(self.first(x)))[0] * self.step


def test_networks_of_a_user_are_built_again():
    net = make_net(Tied, label_smoothing=0.1)
    random_state = torch.get_rng_state()
    loaded = pickle.loads(pickle.dumps(net))
    assert torch.equal(torch.get_rng_state(), random_state)
    module = loaded.module_
    assert not module.training and loaded.criterion_.is_smooth
    assert module.first.weight is module.second.weight is module.listed[0]
    assert module.first.weight.requires_grad and not module.first.bias.requires_grad
    x = torch.ones(2, 3)
    torch.testing.assert_close(module(x), net.module_(x), rtol=0, atol=0)
    assert module.first.weight is not net.module_.first.weight


TENSORS = {
    "half": torch.randn(2, 3).half(),
    "brain": torch.randn(2, 3).bfloat16(),
    "complex": torch.randn(2, 3, dtype=torch.complex64),
    "turned": torch.randn(2, 3).T,
    "last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "count": torch.tensor(2**40),
    "truth": torch.tensor([True, False]),
    "empty": torch.zeros(0, 3),
}


class Typed(nn.Module):
    def __init__(self):
        super().__init__()
        for name, tensor in TENSORS.items():
            self.register_buffer(f"its_{name}", torch.zeros_like(tensor))


def test_tensors_of_all_dtypes_are_restored_bit_for_bit():
    net = make_net(Typed)
    net.module_.load_state_dict({f"its_{name}": t for name, t in TENSORS.items()})
    loaded = pickle.loads(pickle.dumps(net)).module_
    for name, tensor in TENSORS.items():
        found = getattr(loaded, f"its_{name}")
        assert found.dtype == tensor.dtype
        assert torch.equal(found, tensor)
        assert found.stride() == tensor.stride()


class Extra(nn.Linear):
    """A layer whose state has more than tensors."""

    def __init__(self):
        super().__init__(3, 3)
        self.extra = None
        self.register_buffer("scale", torch.ones(3), persistent=False)

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        self.extra = state


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_changed_dtype_is_restored(dtype):
    net = make_net(Extra)
    net.module_.to(dtype)
    loaded = pickle.loads(pickle.dumps(net)).module_
    for name in ("weight", "bias", "scale"):
        found, tensor = getattr(loaded, name), getattr(net.module_, name)
        assert found.dtype == dtype and torch.equal(found, tensor)


@pytest.mark.parametrize(
    "extra", [{"n_calls": 2}, np.ones(2), torch.ones(2).bfloat16()]
)
def test_extra_state_is_restored(extra):
    net = make_net(Extra)
    net.module_.extra = extra
    found = pickle.loads(pickle.dumps(net)).module_.extra
    assert type(found) is type(extra) and str(found) == str(extra)


@pytest.fixture(scope="module")
def table_model():
    model, X, y = FITS["one network"]
    return model.fit(X, y), X


@pytest.mark.parametrize("mode", [None, "r"])
def test_joblib_keeps_a_fitted_estimator_also_memory_mapped(
    mode, table_model, tmp_path
):
    model, X = table_model
    joblib.dump(model, tmp_path / "model")
    loaded = joblib.load(tmp_path / "model", mmap_mode=mode)
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def test_copies_share_no_memory(table_model):
    model, X = table_model
    before = model.predict(X)
    for made in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with torch.no_grad():
            for tensor in made.network_.module_.parameters():
                tensor.zero_()
        np.testing.assert_array_equal(model.predict(X), before)
    again = clone(model).fit(*FITS["one network"][1:])
    np.testing.assert_array_equal(again.predict(X), before)


def test_shared_network_is_saved_once(table_model):
    model, _ = table_model
    loaded = skops_copy(model)
    assert loaded.network_ is loaded.ensemble_.members[0].networks[0]


def test_network_of_a_gpu_loads_without_a_gpu(table_model, monkeypatch):
    net = copy.deepcopy(table_model[0].network_)
    net.device = "cuda"
    content = pickle.dumps(net)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.warns(DeviceWarning, match="Loading on device"):
        loaded = pickle.loads(content)
    assert torch.device(loaded.device).type == "cpu"
    assert {p.device.type for p in loaded.module_.parameters()} == {"cpu"}


def test_network_is_restored_to_its_device(table_model):
    net = copy.deepcopy(table_model[0].network_)
    net.device = "meta"  # stands in for an available GPU
    loaded = pickle.loads(pickle.dumps(net))
    assert loaded.device == "meta"
    assert {p.device.type for p in loaded.module_.parameters()} == {"meta"}
