"""One fit of one model on one table, in the environment of that model.

    python _peers.py MODEL TABLE SEED BUDGET LINE

tables.py calls it. TABLE is a Parquet file; the results are written to LINE as JSON.
Packages that only some models need are imported by those models, since no environment
has all of them.
"""

import json
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn import metrics
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

PORTFOLIO_TRIALS = 13  # architectures that a search starts with, the default included
MAX_ROWS = 12_500  # rows kept of larger tables; a fifth is held out
CORES = 2


@dataclass(frozen=True)
class Table:
    """A table, split; classes are numbered in the sorted order of their names."""

    name: str
    X_train: pd.DataFrame
    X_test: pd.DataFrame
    y_train: np.ndarray
    y_test: np.ndarray
    is_classification: bool

    @property
    def categories(self):
        """Names of the columns that hold categories."""
        return list(self.X_train.select_dtypes("category"))

    @property
    def numbers(self):
        """Names of the other columns."""
        return list(self.X_train.columns.drop(self.categories))


def read_table(path):
    """Read and split a table, in the same way for all models and seeds."""
    data = pd.read_parquet(path)
    X, y = data.drop(columns="target"), data["target"]
    is_classification = y.dtype == "category"
    if is_classification:
        kept = y.map(y.value_counts()).astype(int) >= 5
        X, y = X[kept], y[kept].astype(str)
        y = y.map({name: code for code, name in enumerate(sorted(set(y)))})

    def split(X, y, **sizes):
        stratify = y if is_classification else None
        return train_test_split(X, y, random_state=0, stratify=stratify, **sizes)

    if len(X) > MAX_ROWS:
        X, _, y, _ = split(X, y, train_size=MAX_ROWS)
    X_train, X_test, y_train, y_test = split(X, y.to_numpy(), test_size=0.2)
    return Table(path.stem, X_train, X_test, y_train, y_test, is_classification)


def hgb(table, seed, budget):
    cls = (
        HistGradientBoostingClassifier
        if table.is_classification
        else HistGradientBoostingRegressor
    )
    return cls(categorical_features="from_dtype", random_state=seed)


def catboost(table, seed, budget):
    from catboost import CatBoostClassifier, CatBoostRegressor

    def words(X):  # it takes no missing categories
        categories = X[table.categories].astype(object).fillna("missing")
        return X.assign(**categories)

    cls = CatBoostClassifier if table.is_classification else CatBoostRegressor
    model = cls(
        cat_features=table.categories,
        thread_count=CORES,
        random_seed=seed,
        verbose=False,
    )
    return make_pipeline(FunctionTransformer(words), model)


def lightgbm(table, seed, budget):
    from lightgbm import LGBMClassifier, LGBMRegressor

    cls = LGBMClassifier if table.is_classification else LGBMRegressor
    return cls(random_state=seed, verbose=-1)


def realmlp(table, seed, budget):
    from pytabkit import RealMLP_TD_Classifier, RealMLP_TD_Regressor

    cls = RealMLP_TD_Classifier if table.is_classification else RealMLP_TD_Regressor
    # It takes no missing numbers.
    filled = ColumnTransformer(
        [("numbers", SimpleImputer(strategy="median"), table.numbers)],
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    return make_pipeline(filled, cls(device="cpu", random_state=seed))


def autogluon(table, seed, budget):
    from autogluon.tabular import TabularPredictor

    problem_type = "regression"
    if table.is_classification:
        problem_type = "binary" if len(set(table.y_train)) == 2 else "multiclass"

    class AutoGluon:
        """AutoGluon with the methods of scikit-learn."""

        def fit(self, X, y):
            self.predictor_ = TabularPredictor(
                "target",
                problem_type=problem_type,
                path="models",
                learner_kwargs={"random_state": seed},
            )
            self.predictor_.fit(
                X.assign(target=y),
                presets="best_quality",
                time_limit=budget,
                num_cpus=CORES,
                num_gpus=0,
            )
            return self

        def predict(self, X):
            return self.predictor_.predict(X, as_pandas=False)

        def predict_proba(self, X):
            return self.predictor_.predict_proba(X, as_pandas=False)

    return AutoGluon()


def bayes_search(table, seed, budget):
    """Return a search that combines scikit-optimize and skorch by hand."""
    import torch
    from skopt import BayesSearchCV
    from skopt.callbacks import DeadlineStopper
    from skopt.space import Categorical, Integer, Real
    from skorch import NeuralNetClassifier, NeuralNetRegressor
    from skorch.callbacks import EarlyStopping

    class MLP(torch.nn.Module):
        def __init__(self, n_inputs, n_outputs, width=128, depth=2, dropout=0.1):
            super().__init__()
            layers = []
            for layer in range(depth):
                layers += [
                    torch.nn.Linear(width if layer else n_inputs, width),
                    torch.nn.ReLU(),
                    torch.nn.Dropout(dropout),
                ]
            self.layers = torch.nn.Sequential(
                *layers, torch.nn.Linear(width, n_outputs)
            )

        def forward(self, X):
            return self.layers(X)

    class ColumnRegressor(NeuralNetRegressor):
        """skorch wants a column as target where scikit-learn gives a vector."""

        def fit(self, X, y, **fit_params):
            return super().fit(X, y.reshape(-1, 1).astype(np.float32), **fit_params)

    levels = [table.X_train[name].cat.categories for name in table.categories]
    net = {
        "module": MLP,
        "module__n_inputs": len(table.numbers) + sum(map(len, levels)),
        "module__n_outputs": 1,
        "optimizer": torch.optim.AdamW,
        "max_epochs": 50,
        "batch_size": 256,
        "callbacks": [EarlyStopping(patience=10, load_best=True)],
        "verbose": 0,
    }
    if table.is_classification:
        net["module__n_outputs"] = len(np.unique(table.y_train))
        net = NeuralNetClassifier(criterion=torch.nn.CrossEntropyLoss, **net)
    else:
        net = ColumnRegressor(**net)
    encoder = ColumnTransformer(
        [
            (
                "numbers",
                make_pipeline(SimpleImputer(strategy="median"), StandardScaler()),
                table.numbers,
            ),
            (
                "categories",
                make_pipeline(
                    SimpleImputer(strategy="most_frequent"),
                    OneHotEncoder(categories=levels, sparse_output=False),
                ),
                table.categories,
            ),
        ]
    )
    single = FunctionTransformer(np.asarray, kw_args={"dtype": np.float32})
    model = make_pipeline(encoder, single, net)
    prefix = type(net).__name__.lower() + "__"
    if not table.is_classification:
        model = TransformedTargetRegressor(model, transformer=StandardScaler())
        prefix = "regressor__" + prefix
    choices = {  # widths and depths are those of TableSpace
        "module__width": Categorical([32, 64, 128, 256]),
        "module__depth": Integer(1, 4),
        "module__dropout": Real(0.0, 0.5),
        "optimizer__lr": Real(1e-4, 1e-2, "log-uniform"),
        "optimizer__weight_decay": Real(1e-6, 1e-1, "log-uniform"),
    }

    class TimedSearch(BayesSearchCV):
        def fit(self, X, y):
            torch.manual_seed(seed)
            torch.set_num_threads(
                1
            )  # two threads wait for each other on a busy machine
            return super().fit(X, y, callback=DeadlineStopper(budget))

    return TimedSearch(
        model,
        {prefix + name: choice for name, choice in choices.items()},
        n_iter=1000,  # the time ends it
        cv=3,
        n_jobs=CORES,
        random_state=seed,
    )


def sknas(table, seed, budget, **parameters):
    from _portfolios import held_out_space

    from sknas import NASClassifier, NASRegressor

    space = held_out_space(table.name)
    cls = NASClassifier if table.is_classification else NASRegressor
    return cls(space, max_time=budget, random_state=seed, **parameters)


def sknas_portfolio(table, seed, budget):
    """Return a search of the portfolio alone, to show what searching adds."""
    return sknas(table, seed, budget, max_trials=PORTFOLIO_TRIALS)


MODELS = {
    model.__name__: model
    for model in (
        hgb,
        catboost,
        lightgbm,
        realmlp,
        autogluon,
        bayes_search,
        sknas,
        sknas_portfolio,
    )
}


def measure(model, table, seed, budget):
    """Return the seconds of a fit and its scores on held-out rows."""
    estimator = MODELS[model](table, seed, budget)
    started = time.perf_counter()
    estimator.fit(table.X_train, table.y_train)
    fitted = time.perf_counter()
    predict = estimator.predict_proba if table.is_classification else estimator.predict
    predicted = predict(table.X_test)
    done = time.perf_counter()
    score = score_classes if table.is_classification else score_numbers
    line = {
        "rows": len(table.X_train),
        "fit_s": round(fitted - started, 1),
        "predict_s": round(done - fitted, 3),
        **score(table.y_test, predicted),
    }
    if model.startswith("sknas"):
        line |= {
            "best_score": estimator.best_score_,
            "n_trials": estimator.n_trials_,
            "members": len(estimator.ensemble_),
            "stop_reason": estimator.stop_reason_,
            "optimism": estimator.best_score_ - line.get("acc", line.get("r2")),
        }
    return line


def score_classes(y, shares):
    labels = np.arange(shares.shape[1])
    accuracy = metrics.accuracy_score(y, shares.argmax(axis=1))
    return {
        "acc": accuracy,
        "error": 1 - accuracy,
        "logloss": metrics.log_loss(y, shares, labels=labels),
        "auc": metrics.roc_auc_score(
            y, shares[:, 1] if len(labels) == 2 else shares, multi_class="ovr"
        ),
    }


def score_numbers(y, predicted):
    rmse = metrics.root_mean_squared_error(y, predicted)
    return {
        "rmse": rmse,
        "r2": metrics.r2_score(y, predicted),
        "error": rmse / float(np.std(y)),
    }


def main(model, path, seed, budget, line):
    warnings.simplefilter("ignore")
    measured = measure(model, read_table(Path(path)), int(seed), float(budget))
    Path(line).write_text(json.dumps(measured))


if __name__ == "__main__":
    main(*sys.argv[1:])
