"""The docstrings of the two estimators describe shared parameters alike."""

import re

from sknas import NASClassifier, NASRegressor


def entries(cls):
    """Return descriptions of the parameters and attributes of a class, by name."""
    text = cls.__doc__.split("Parameters\n")[1].split("    See Also\n")[0]
    found = re.findall(r"^    (\w+ : .+)\n((?:        .+\n)+)", text, re.M)
    return {line.split(" : ")[0]: (line, description) for line, description in found}


def test_both_estimators_describe_shared_names_alike():
    classifier, regressor = entries(NASClassifier), entries(NASRegressor)
    assert classifier.keys() - regressor.keys() == {"class_weight", "classes_"}
    assert regressor.keys() <= classifier.keys()
    differing = [name for name in regressor if regressor[name] != classifier[name]]
    assert differing == ["scoring"]
    assert set(NASClassifier().get_params()) <= classifier.keys()
