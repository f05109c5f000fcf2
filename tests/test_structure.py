"""The structure of the package: allowed imports and class hierarchies."""

import ast
import importlib
import inspect
from graphlib import TopologicalSorter
from pathlib import Path

import sknas

ROOT = Path(sknas.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# From the top: a part may import parts of its own row and of the rows below.
ROWS = (
    {"_estimators"},
    {"_base"},
    {"_ensemble", "_resolve", "_search"},
    {"strategies", "trainers"},
    {"_parallel"},
    {"spaces"},
    {"nets"},
    {"_checkpoint"},
    {"_data", "_scoring", "_training"},
    {"_budget", "_history", "_problem", "_results", "_validation", "exceptions"},
)
APART = ({"strategies", "trainers"},)  # these must not import each other
LEVEL = {part: level for level, row in enumerate(ROWS) for part in row}
# Libraries that are imported by one module, which is itself imported when needed.
BEHIND_ONE_MODULE = {
    "skopt": "sknas.strategies.bayesian.surrogates",
    "skorch": "sknas.trainers._skorch_net",
    "tqdm": "sknas._search.progress",
}
MAX_LINES, MAX_DEPTH = 500, 3


def part_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def module_of(path):
    names = ["sknas", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(names).removesuffix(".__init__")


def imported_names(source):
    """Return the names of the modules that a source imports, at any level."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            own = node.module == "sknas"
            names |= {f"sknas.{a.name}" for a in node.names} if own else {node.module}
    return names


def imported_parts(source):
    """Return the parts of the package that a source imports, at any level."""
    names = imported_names(source)
    return {name.split(".")[1] for name in names if name.startswith("sknas.")}


def own_classes():
    """Return the classes that the package defines."""
    modules = [importlib.import_module(module_of(path)) for path in FILES]
    return [
        cls
        for module in modules
        for cls in vars(module).values()
        if inspect.isclass(cls) and cls.__module__ == module.__name__
    ]


def is_own(cls):
    return cls.__module__.split(".")[0] == "sknas"


PARTS = [path for path in FILES if path != ROOT / "__init__.py"]


def test_parts_import_only_lower_parts():
    for path in PARTS:
        part = part_of(path)
        for imported in imported_parts(path.read_text()) - {part}:
            is_below = LEVEL[part] <= LEVEL[imported]
            assert is_below, f"{path.name}: {part} imports {imported}, above it"
            assert {part, imported} not in APART, f"{path.name} imports {imported}"


def test_parts_have_no_import_cycles():
    graph = {}
    for path in PARTS:
        part = part_of(path)
        graph.setdefault(part, set()).update(imported_parts(path.read_text()) - {part})
    assert set(graph) <= set(LEVEL)
    TopologicalSorter(graph).prepare()


def test_imported_parts_finds_every_form_of_import():
    source = """
import numpy, sknas.nets
from sknas import spaces
from sknas._checks import reject
def f():
    from sknas.encoding._table import Table
"""
    assert imported_parts(source) == {"nets", "spaces", "_checks", "encoding"}


def test_libraries_are_behind_one_module():
    users = {
        (name.partition(".")[0], module_of(path))
        for path in FILES
        for name in imported_names(path.read_text())
    }
    found = {pair for pair in users if pair[0] in BEHIND_ONE_MODULE}
    assert found == set(BEHIND_ONE_MODULE.items())


def test_a_class_is_abstract_or_final():
    bases = {base for cls in own_classes() for base in cls.__bases__ if is_own(base)}
    concrete = [base for base in bases if not inspect.isabstract(base)]
    assert [base for base in concrete if not issubclass(base, BaseException)] == []


def test_classes_derive_from_few_others():
    depths = {cls: sum(map(is_own, cls.__mro__)) for cls in own_classes()}
    assert [cls for cls, depth in depths.items() if depth > MAX_DEPTH] == []


def test_files_are_short():
    n_lines = {path.name: len(path.read_text().splitlines()) for path in FILES}
    assert [name for name, n in n_lines.items() if n > MAX_LINES] == []
