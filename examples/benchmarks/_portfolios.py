"""Spaces whose portfolio was learnt on other tables."""

import json

from _library import starting_from
from _lines import RESULTS


def held_out_space(name):
    """Return a table space whose portfolio was learnt without a table."""
    picked = json.loads((RESULTS / "portfolios.json").read_text())
    return starting_from([{}, *picked[name]])
