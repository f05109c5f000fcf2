"""The folder of a checkpoint, and estimators that share one."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.ensemble import VotingClassifier
from sklearn.model_selection import cross_val_score

from sknas import NASClassifier
from sknas._checkpoint import shared
from sknas._checkpoint.folder import find_folder
from sknas.exceptions import CheckpointError, InvalidParameterError, SearchWarning

X, Y = load_iris(return_X_y=True)
OWNED = "holds this search already, as another NASClassifier of this process ran it"


def tiny(folder, **parameters):
    usual = {"max_trials": 1, "max_epochs": 2, "cv": 2, "n_jobs": 1}
    return NASClassifier(checkpoint=folder, **{**usual, **parameters})


@pytest.fixture
def user_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("given", ["~/runs", Path("~/runs"), "~/runs/"])
def test_a_tilde_is_the_folder_of_the_user(user_folder, given):
    assert find_folder("NASClassifier", given) == user_folder / "runs"


def test_a_search_of_a_user_folder_writes_there_alone(user_folder, monkeypatch):
    (user_folder / "here").mkdir()
    monkeypatch.chdir(user_folder / "here")
    tiny("~/runs").fit(X, Y)
    assert len(list((user_folder / "runs").glob("*/search.json"))) == 1
    assert not list((user_folder / "here").iterdir())


def test_a_relative_folder_is_that_of_the_call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    def scorer(estimator, X, y):
        os.chdir(tmp_path / "elsewhere")
        return 0.5

    tiny("runs", scoring=scorer).fit(X, Y)
    assert len(list((tmp_path / "runs").glob("*/search.json"))) == 1
    assert not list((tmp_path / "elsewhere").iterdir())


class BytesPath:
    def __fspath__(self):
        return b"folder"

    def __repr__(self):
        return "BytesPath()"


@pytest.mark.parametrize(
    ("given", "allowed", "advice"),
    [
        ("", "a folder or None", "."),
        (BytesPath(), "a folder or None", "."),
        (
            "$HOME/runs",
            "a folder without environment variables",
            "; give os.path.expandvars(checkpoint).",
        ),
        (
            "~nobody-of-this-name/runs",
            "a folder of a known user",
            "; give './~nobody-of-this-name/runs' for a folder of this name.",
        ),
    ],
)
def test_other_folders_are_refused_before_the_search(
    user_folder, given, allowed, advice
):
    with pytest.raises(InvalidParameterError) as caught:
        tiny(given).fit(X, Y)
    assert str(caught.value) == (
        f"The 'checkpoint' parameter of NASClassifier must be {allowed}, got "
        f"{given!r}{advice}"
    )


@pytest.mark.parametrize("name", ["a$b", "%UNKNOWN%", "a b", "ü", "~backup"])
def test_unusual_names_are_folders(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    given = name if not name.startswith("~") else f"./{name}"
    assert find_folder("NASClassifier", given) == tmp_path / name


# --------------------------------------------------------------- one search, two models


def test_two_members_without_a_seed_are_said_to_be_one_model(tmp_path):
    members = [(name, tiny(tmp_path)) for name in "ab"]
    with pytest.warns(SearchWarning, match=OWNED):
        model = VotingClassifier(members).fit(X, Y)
    one, other = (member.predict_proba(X) for member in model.estimators_)
    np.testing.assert_array_equal(one, other)


def test_few_searches_of_estimators_that_are_gone_are_remembered(monkeypatch):
    monkeypatch.setattr(shared, "_estimators", {})
    living = [tiny("folder") for _ in range(3)]
    for seed in range(300):
        shared.register_search(living[seed] if seed < 3 else tiny("folder"), {}, seed)
    assert len(shared._estimators) <= 3 + shared.MAX_GONE + 1
    with pytest.warns(SearchWarning, match=OWNED):
        shared.warn_of_shared_search(tiny("folder"), {}, 299)


def test_a_search_that_is_repeated_without_a_seed_is_said_to_be_the_same(tmp_path):
    tiny(tmp_path).fit(X, Y)
    model = tiny(tmp_path)
    with pytest.warns(SearchWarning, match=OWNED):  # though the first one is gone
        model.fit(X, Y)
    model.fit(X, Y)
    with pytest.warns(SearchWarning, match=re.escape(f"checkpoint={str(tmp_path)!r}")):
        clone(model).fit(X, Y)


def test_estimators_that_are_to_share_a_search_are_not_warned(tmp_path):
    for seed in (0, 0):
        tiny(tmp_path / "seeds", random_state=seed).fit(X, Y)
    tiny(tmp_path / "one").fit(X, Y).fit(X, Y)
    for folder in ("two", "three"):
        tiny(tmp_path / folder).fit(X, Y)
    shutil.rmtree(tmp_path / "three")
    tiny(tmp_path / "three").fit(X, Y)


@pytest.mark.filterwarnings("ignore:checkpoint=.*holds no search of this data")
def test_folds_of_other_rows_are_not_warned(tmp_path):
    assert len(cross_val_score(tiny(tmp_path), X, Y, cv=2)) == 2


def test_an_interrupted_search_is_resumed_by_another_estimator(tmp_path):
    def interrupted(estimator, X, y):
        if not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        return float((estimator.predict(X) == y).mean())

    with pytest.raises(KeyboardInterrupt):
        tiny(tmp_path / "runs", scoring=interrupted).fit(X, Y)
    (tmp_path / "again").mkdir()
    tiny(tmp_path / "runs", scoring=interrupted).fit(X, Y)


def test_two_threads_do_not_run_one_search(tmp_path):
    def nested(estimator, X_, y):
        with pytest.raises(CheckpointError, match="or another thread of this one; "):
            tiny(tmp_path, scoring=nested).fit(X, Y)
        return 0.5

    tiny(tmp_path, scoring=nested).fit(X, Y)
