"""The components and the problem of a fit, without the search."""

from sknas._data.prepare import prepare
from sknas._resolve import draw_seed, resolve


def prepare_fit(model, X, y, sample_weight=None, groups=None):
    """Return the components that an estimator resolves to, and its training data."""
    parts = resolve(model, X)
    return parts, prepare(model, parts.reader, X, y, sample_weight, groups)


def problem_of(model, X, y, sample_weight=None, groups=None):
    """Return the components of an estimator for its training data, and the problem."""
    parts, data = prepare_fit(model, X, y, sample_weight, groups)
    budget = model._plan_budget(parts, data, None)
    scorer = model._make_scorer(parts, data)
    problem = model._make_problem(
        parts, data, scorer, budget, draw_seed(model.random_state)
    )
    return parts.for_task(problem.task), problem
