"""Retired identifiers of the glossary are not used."""

import ast
import re
from collections import Counter
from pathlib import Path

import sknas

ROOT = Path(sknas.__file__).parent
REPOSITORY = ROOT.parent
# Retired words of identifiers, each with its replacement.
RETIRED = {
    "annealed": "cycle_ends",
    "bare": "summary, without_arrays, for_worker",
    "beside": "alongside",
    "conductor": "callback",
    "crew": "executor",
    "ghost": "straight_through",
    "halved": "promoted, micro-batches or bilevel split",
    "halves": "promoted, micro-batches or bilevel split",
    "harm": "loss_increase",
    "home": "parent process",
    "hurts": "loss_increase",
    "insisting": "run_with_retries",
    "journal": "store",
    "leaders": "top_k",
    "liar": "fantasise",
    "lied": "fantasise",
    "look": "snapshot",
    "looks": "snapshots",
    "moments": "state_dict",
    "owner": "caller_name",
    "parcel": "payload",
    "place": "index",
    "places": "indices",
    "relaxed": "supernet",
    "settle": "converge",
    "settled": "converged",
    "spare": "fallbacks",
    "steep": "sgd_like",
    "survivors": "promoted",
    "told": "options, state",
    "valleys": "cycle_ends",
}


def identifiers(path):
    """Return the names that a file defines, except those of other libraries."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(
            node.ctx, ast.Store
        ):
            yield node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname


def words(identifier):
    """Split an identifier in snake or camel case into words."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", identifier)
    return set(spaced.lower().split("_"))


def retired(folder):
    files = [path for path in sorted(folder.rglob("*.py")) if path != Path(__file__)]
    found = Counter(
        (str(path.relative_to(REPOSITORY)), name)
        for path in files
        for name in identifiers(path)
        if words(name) & RETIRED.keys()
    )
    return sorted(found)


def test_no_retired_identifier_is_used():
    folders = ("sknas", "tests", "examples")
    assert [pair for name in folders for pair in retired(REPOSITORY / name)] == []


def test_identifiers_are_split_into_words():
    assert words("_n_places") == {"", "n", "places"}
    assert words("JoblibCrew") == {"joblib", "crew"}
    assert not words("replace") & RETIRED.keys()
