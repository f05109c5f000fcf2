"""Generated tables and images, fitted and asked under settings of the caller."""

import copy
from contextlib import ExitStack

import numpy as np
from hostile_cases import FaultError, brief
from hostile_images import image_case
from hostile_tables import table_case
from library_settings import SETTINGS, state

from sknas.exceptions import SearchWarning, UnseenValuesWarning

MAX_SETTINGS = 6
STRATEGIES = ("bayesian", "evolution", "gradient", "local", "random", "reinforce")


def settings_case(seed):
    """Return a case of a table or of images, under settings that are drawn."""
    rng = np.random.default_rng([seed, 19])
    is_image = rng.random() < 0.3
    case = image_case(seed) if is_image else table_case(seed)
    if not is_image:
        case.estimator.set_params(strategy=str(rng.choice(STRATEGIES)))
    case.estimator.set_params(max_trials=int(rng.integers(1, 4)))
    in_fit, in_predict = _drawn(rng), _drawn(rng)
    case.estimator = Surrounded(case.estimator, in_fit, in_predict)
    case.notes.append(f"fit with {in_fit}, predict with {in_predict}")
    return case


def _drawn(rng):
    n = rng.integers(1, MAX_SETTINGS)
    return rng.choice(list(SETTINGS), n, replace=False).tolist()


class Surrounded:
    """An estimator under settings, which must do what it does without them.

    Parameters
    ----------
    estimator : NASClassifier or NASRegressor
        Fitted twice, without and with the settings.
    in_fit, in_predict : list of str
        Names of the settings.
    """

    def __init__(self, estimator, in_fit, in_predict):
        self.plain, self.inside = copy.deepcopy(estimator), estimator
        self.in_fit, self.in_predict = in_fit, in_predict

    def __repr__(self):
        return repr(self.plain)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.inside, name)

    def fit(self, X, y, **options):
        error = _error(self.plain.fit, X, y, **options)
        under = self._under(self.in_fit, lambda: self.inside.fit(X, y, **options))
        if isinstance(under, SearchWarning) and "warnings" in self.in_fit:
            # Ours are errors, as the caller wants: without this setting then.
            self.in_fit = [name for name in self.in_fit if name != "warnings"]
            under = self._under(self.in_fit, lambda: self.inside.fit(X, y, **options))
        _compare(under, error, self.in_fit)
        if under is not None:
            raise under
        return self

    def predict(self, X):
        return self._ask("predict", X)

    def predict_proba(self, X):
        return self._ask("predict_proba", X)

    def _ask(self, method, X):
        wanted, found = [], []
        ask, ask_inside = getattr(self.plain, method), getattr(self.inside, method)
        error = _error(lambda: wanted.append(ask(X)))
        under = self._under(self.in_predict, lambda: found.append(ask_inside(X)))
        if isinstance(under, UnseenValuesWarning) and "warnings" in self.in_predict:
            under = _error(lambda: found.append(ask_inside(X)))
        _compare(under, error, self.in_predict)
        if under is not None:
            raise under
        if found[0].tobytes() != wanted[0].tobytes() and found[0].dtype != object:
            where = f"{brief(found[0])} for {brief(wanted[0])}"
            raise FaultError(f"other answers under settings: {where}")
        return found[0]

    def _under(self, names, call):
        """Return the error of a call under settings, which must stay as they are."""
        with ExitStack() as stack:
            for name in names:
                stack.enter_context(SETTINGS[name]())
            before = state()
            error = _error(call)
            after = state()
        changed = [name for name in before if str(before[name]) != str(after[name])]
        if changed:
            raise FaultError(f"settings were changed: {changed}")
        return error


def _error(call, *arguments, **options):
    """Return the error that a call raises, None without one."""
    try:
        call(*arguments, **options)
    except Exception as error:
        return error
    return None


def _compare(found, wanted, names):
    is_same = type(found) is type(wanted)
    if "numpy prints" not in names:  # messages show arrays as the caller wants them
        is_same &= str(found) == str(wanted)
    if not is_same:
        message = f"{found!r} under settings, {wanted!r} without"
        raise FaultError(message[:500]) from found
