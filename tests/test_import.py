"""`import sknas` is quick: libraries that few searches need are imported by those."""

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import sknas
import sknas.nets
import sknas.spaces
import sknas.strategies
import sknas.trainers

CODE = """
import json, sys
import torch, sklearn
before = set(sys.modules)
import sknas
new = sorted(set(sys.modules) - before)
from sknas.trainers import TensorNet
print(json.dumps([sorted(before), new, "skorch" in sys.modules, TensorNet.__module__]))
"""
# Besides sknas and what torch and scikit-learn import themselves.
ALLOWED = {"cloudpickle", "filelock", "joblib", "pandas", "sknas", "threadpoolctl"}
ABSENT = (
    *("dask", "distributed", "matplotlib", "polars", "pyarrow", "ray", "skopt"),
    *("skorch", "tabulate", "tqdm", "wcwidth", "yaml"),
    *("sklearn.ensemble", "sklearn.gaussian_process", "sklearn.neural_network"),
)


def packages(modules):
    """Return the public packages of modules; Cython makes up private ones."""
    names = {module.partition(".")[0] for module in modules}
    return {name for name in names if not name.startswith("_")}


def test_import_brings_few_libraries():
    folder = Path(sknas.__file__).parents[1]
    command = [sys.executable, "-c", CODE]
    output = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=folder
    )
    before, new, has_skorch, module = json.loads(output.stdout)
    known = packages(before) | sys.stdlib_module_names | ALLOWED
    assert packages(new) <= known
    assert not set(ABSENT) & set(new)
    # The first net imports skorch.
    assert has_skorch and module == "sknas.trainers._skorch_net"


def test_every_public_name_is_listed():
    names = {}
    exec("from sknas.trainers import *", names)
    assert set(names) - {"__builtins__"} == set(sknas.trainers.__all__)
    assert set(dir(sknas.trainers)) == set(sknas.trainers.__all__)


def test_an_unknown_name_is_rejected():
    with pytest.raises(
        AttributeError, match=r"'sknas\.trainers' has no .* 'TensorNets'"
    ):
        sknas.trainers.TensorNets  # noqa: B018


def public_functions(cls):
    """Return the constructor, the methods and the getters of a class."""
    for name in dir(cls):
        value = inspect.getattr_static(cls, name)
        value = value.fget if isinstance(value, property) else value
        if (name == "__init__" or name[0] != "_") and inspect.isfunction(value):
            yield value


@pytest.mark.parametrize(
    "package", [sknas, sknas.nets, sknas.spaces, sknas.strategies, sknas.trainers]
)
def test_annotations_of_public_names_can_be_evaluated(package):
    for value in filter(callable, (getattr(package, n) for n in package.__all__)):
        get_type_hints(value)
        for function in public_functions(value) if inspect.isclass(value) else ():
            get_type_hints(function)
