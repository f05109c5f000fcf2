"""Spaces that start from what was learnt on other tables."""

import json

from _library import starting_from
from _lines import RESULTS


def held_out_space(name):
    """A table space whose portfolio never saw a table."""
    picked = json.loads((RESULTS / "portfolios.json").read_text())
    return starting_from([{}, *picked[name]])
