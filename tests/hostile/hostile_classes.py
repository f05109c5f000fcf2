"""Cases with few rows of a class: class counts, scorers, folds, weights and groups."""

from dataclasses import dataclass

import numpy as np
from hostile_cases import TINY, Case, FaultError, outcome
from sklearn import metrics
from sklearn.metrics import make_scorer
from sklearn.model_selection import (
    KFold,
    LeaveOneGroupOut,
    LeaveOneOut,
    ShuffleSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
    TimeSeriesSplit,
)

from sknas import NASClassifier

LABELS = {
    "ints": np.arange(40),
    "others": np.arange(40) * 3 + 2,
    "words": np.array([f"class {index:02}" for index in range(40)]),
    "floats": np.arange(40) - 7.0,
}
# Scores that are defined for any classes, whatever their labels, and others.
DEFINED = (
    *(None, "balanced_accuracy", "matthews_corrcoef", "f1_macro", "recall_weighted"),
    *("neg_log_loss", "roc_auc_ovr", "roc_auc_ovo", "roc_auc_ovr_weighted"),
    *("roc_auc_ovo_weighted", "top_k_accuracy", "jaccard_micro"),
)
OTHERS = (
    *("f1", "roc_auc", "average_precision", "neg_brier_score", "d2_log_loss_score"),
    *("precision", "f1_samples", "positive_likelihood_ratio", "mutual_info_score"),
)


def _proba(metric, **options):
    return make_scorer(metric, response_method="predict_proba", **options)


def _asks_for_classes(estimator, X, y):
    probabilities = estimator.predict_proba(X)
    assert probabilities.shape == (len(y), len(estimator.classes_))
    return -metrics.log_loss(y, probabilities, labels=estimator.classes_)


CALLABLES = (
    _proba(metrics.log_loss, greater_is_better=False),
    _proba(metrics.top_k_accuracy_score, k=1),
    make_scorer(metrics.fbeta_score, beta=2, average="macro", pos_label=None),
    make_scorer(metrics.cohen_kappa_score),
    _asks_for_classes,
)
SPLITTERS = (
    *(StratifiedKFold(3), KFold(2), ShuffleSplit(2, random_state=0), LeaveOneOut()),
    *(TimeSeriesSplit(2), LeaveOneGroupOut(), StratifiedGroupKFold(2)),
)


@dataclass
class ClassCase(Case):
    """A case; if `is_complete`, each fold must train and validate each class."""

    is_complete: bool = False


def class_case(seed):
    """Return a case in which some classes have few rows, or few groups."""
    rng = np.random.default_rng(seed)
    case = ClassCase(seed, None, None, None)
    codes = _codes(rng)
    n = len(codes)
    n_classes = codes.max() + 1
    case.X = rng.normal(size=(n, 3)).astype(np.float32)
    case.X[:, 0] += codes
    name = str(rng.choice(list(LABELS)))
    case.y = LABELS[name][codes]
    is_multilabel = rng.random() < 0.15
    if is_multilabel:
        case.y = (rng.random((n, 3)) < rng.choice([0, 0.05, 0.5, 1], 3)).astype(int)
    scoring, is_defined = _scoring(rng)
    cv = _cv(rng, n)
    _weigh(rng, case, n, cv)
    is_plain = cv == "auto" and not is_multilabel and not case.fit
    case.is_complete = is_plain and np.bincount(codes).min() > 1
    case.may_fail = not (case.is_complete and is_defined and n_classes > 1)
    case.new = [(case.X[:3], False)]
    options = {"scoring": scoring, "cv": cv}
    if rng.random() < 0.2 and not is_multilabel:
        options["class_weight"] = "balanced"
    if rng.random() < 0.1:
        options["trainer"] = "skorch"
    case.estimator = NASClassifier(search_space="table", **{**TINY, **options})
    case.notes += [f"counts {np.bincount(codes).tolist()[:12]}", name, str(options)]
    return case


def _codes(rng):
    """Return class codes of few large and many small classes, in any order."""
    n_large, n_small = int(rng.integers(0, 4)), int(rng.integers(1, 8))
    if rng.random() < 0.1:
        n_large, n_small = 0, int(rng.integers(10, 30))
    counts = [*rng.integers(8, 60, n_large), *rng.integers(1, 6, n_small)]
    if rng.random() < 0.5:
        counts = np.maximum(counts, 2)
    if rng.random() < 0.03:  # five folds
        counts = [400, *counts]
    counts = [*counts, 4] if len(counts) == 1 else counts
    return rng.permutation(np.repeat(np.arange(len(counts)), counts))


def _scoring(rng):
    """Return a scorer, and True if it is defined for any classes."""
    kind = rng.random()
    if kind < 0.6:
        return DEFINED[rng.integers(len(DEFINED))], True
    if kind < 0.8:
        return CALLABLES[rng.integers(len(CALLABLES))], True
    return OTHERS[rng.integers(len(OTHERS))], False


def _cv(rng, n):
    kind = rng.random()
    if kind < 0.6:
        return "auto"
    if kind < 0.75:
        return int(rng.integers(2, 7))
    if kind < 0.9:
        return SPLITTERS[rng.integers(len(SPLITTERS))]
    rows = rng.permutation(n)
    return [(rows[: n // 2], rows[n // 2 :]), (rows[1:], rows[:1])]


def _weigh(rng, case, n, cv):
    """Add weights or groups to some cases."""
    if rng.random() < 0.2:
        weights = rng.choice([0.0, 0.5, 1.0, 2.0, 7.0], n)
        case.fit["sample_weight"] = weights
    if rng.random() < 0.2 or isinstance(cv, LeaveOneGroupOut | StratifiedGroupKFold):
        n_groups = int(rng.integers(2, 9))
        case.fit["groups"] = rng.integers(0, n_groups, n)
    case.notes.append(str(sorted(case.fit)))


def class_outcome(case):
    """Return the outcome of a case, after checking the scores of its folds."""
    found = outcome(case)
    if case.is_complete and found == "correct":
        results, scoring = case.estimator.cv_results_, case.estimator.scoring
        splits = [results[key] for key in results if key.startswith("split")]
        scores = np.array([values for values in splits])
        if not np.isfinite(scores).all() and scoring != "positive_likelihood_ratio":
            raise FaultError(f"scores of folds are {scores.tolist()}")
    return found
