"""Pages, docstrings and examples agree with the code.

The python blocks of a page run in order. A text block after a python block shows the
output of that block. Write all of these text blocks again with

    python tests/test_docs.py
"""

import contextlib
import dataclasses
import importlib
import inspect
import io
import os
import re
import runpy
import sys
from pathlib import Path

import pytest

import sknas

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
PAGES = [page for page in PAGES if not {"_build", "gallery"} & set(page.parts)]
ROOMS = runpy.run_path(str(ROOT / "docs" / "rooms.py"))
EXAMPLES = sorted((ROOT / "examples").glob("plot_*.py"))

# A python block, and the text block after it if there is one. "varies" marks output
# that depends on the machine: only its number of lines is compared.
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n"
    r"(?P<gap>\s*(?P<varies><!-- varies -->)?\s*)"
    r"(?:^```text\n(?P<output>.*?)^```\n)?",
    re.M | re.S,
)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
CLOSE = 0.06  # tolerance for numbers printed on another machine


def run_blocks(text):
    """Yield each python block of a page and its output."""
    space = {"__name__": "page"}
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start("code"))
        # Leading blank lines keep the line numbers of tracebacks those of the page.
        code = compile("\n" * line + block["code"], "page", "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, space)
        yield block, printed.getvalue()


def with_new_outputs(text):
    """Return the page with the current output of its code."""
    for block, printed in reversed(list(run_blocks(text))):
        if block["output"] is not None:
            text = text[: block.start("output")] + printed + text[block.end("output") :]
    return text


def assert_alike(printed, shown, varies):
    printed, shown = printed.splitlines(), shown.splitlines()
    assert len(printed) == len(shown), (printed, shown)
    for ours, theirs in zip(printed, shown, strict=True):
        if varies:
            continue
        words = [" ".join(NUMBER.sub("#", line).split()) for line in (ours, theirs)]
        assert words[0] == words[1]
        for x, z in zip(NUMBER.findall(ours), NUMBER.findall(theirs), strict=True):
            assert float(x) == pytest.approx(float(z), rel=CLOSE, abs=CLOSE), ours


# The README is always run.
@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=[] if p is PAGES[0] else pytest.mark.docs) for p in PAGES],
    ids=lambda page: page.stem,
)
def test_code_of_page_prints_the_output_shown(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a page may save a file
    for block, printed in run_blocks(page.read_text(encoding="utf-8")):
        if block["output"] is not None:
            assert_alike(printed, block["output"], block["varies"])


def test_readme_begins_with_a_sentence_an_example_and_a_picture():
    first_screen = (ROOT / "README.md").read_text(encoding="utf-8")[:2_000]
    block = BLOCK.search(first_screen)
    assert block["output"]
    lines = [line for line in block["code"].splitlines() if line]
    assert len(lines) <= 12
    (picture,) = re.findall(r"!\[.+?\]\((.+?)\)", first_screen)
    assert (ROOT / picture).stat().st_size < 150_000


def test_links_between_files_have_a_target():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_budget_table_agrees_with_the_code():
    from sknas._budget import Workload, defaults_for, plan_budget

    text = (ROOT / "docs" / "user_guide" / "budget.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d,]+)( images)? \| (.+) \|$", text, re.M)
    assert len(rows) >= 8
    for first, images, rest in rows:
        n_rows = int(first.replace(",", ""))
        options = {"is_batched": False, "n_pixels": 64} if images else {}
        plan = plan_budget(Workload(n_rows, **options), None, None)
        size = defaults_for(bool(images)).batch_size(n_rows)
        known = [plan.n_trials, plan.n_folds, plan.n_steps, size]
        assert [int(cell.replace(",", "")) for cell in rest.split(" | ")] == known


# Checks of numpydoc that are not applied, each with its reason.
NOT_CHECKED = {
    "ES01",  # one sentence often suffices
    "EX01",  # `test_class_has_an_example` asks for examples
    "SA01",  # a See Also section only where it helps
    "SS05",  # takes words such as "process" for a verb in the third person
}
NOT_CHECKED_OF_METHODS = NOT_CHECKED | {
    "GL08",  # documented once, on the abstract class
    "PR01",  # one sentence may describe a short method
    "RT01",
    "YD01",
}
# Classes whose parameters are documented by skorch, torch or Python.
NAMES = ("GroupedModule", "HalfPrecisionModule", "InitializedModule", "LRGroup")
FOREIGN = {"sknas.trainers.TensorNet", *(f"sknas.nets.{name}" for name in NAMES)}
MODULES = ("sknas", "sknas.spaces", "sknas.strategies", "sknas.trainers", "sknas.nets")


def public_objects():
    """Return the names and objects of the public modules."""
    for module in map(importlib.import_module, MODULES):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                yield f"{module.__name__}.{name}", thing
    for name, thing in vars(importlib.import_module("sknas.exceptions")).items():
        if inspect.isclass(thing):
            yield f"sknas.exceptions.{name}", thing


PUBLIC = dict(public_objects())
CLASSES = {name: thing for name, thing in PUBLIC.items() if inspect.isclass(thing)}


def faults(name, not_checked):
    from numpydoc.validate import validate

    errors = validate(name)["errors"]
    return [f"{code} {text}" for code, text in errors if code not in not_checked]


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_is_valid(name):
    inherited = {"PR01"} if name in FOREIGN else set()
    assert not faults(name, NOT_CHECKED | inherited)


@pytest.mark.parametrize("name", CLASSES)
def test_docstrings_of_methods_are_valid(name):
    for method, thing in vars(CLASSES[name]).items():
        is_shown = inspect.isfunction(thing) or isinstance(thing, property)
        if is_shown and not method.startswith("_"):
            assert not faults(f"{name}.{method}", NOT_CHECKED_OF_METHODS), method


def is_plain_record(cls):
    """True if a class only holds data that the library creates and the user reads."""
    return dataclasses.is_dataclass(cls) or issubclass(cls, BaseException)


def needs_example(name):
    """True if a public class is more than a layer or a record."""
    is_other = name.startswith("sknas.nets.") or name in FOREIGN
    return not is_other and not is_plain_record(CLASSES[name])


@pytest.mark.parametrize("name", list(filter(needs_example, CLASSES)))
def test_class_has_an_example(name):
    assert ">>> " in CLASSES[name].__doc__, f"{name} shows no example"


def test_estimators_document_their_fitted_attributes():
    from sklearn.datasets import load_iris

    for cls in (sknas.NASClassifier, sknas.NASRegressor):
        fitted = cls(max_trials=1, max_epochs=2, n_jobs=1, random_state=0)
        fitted.fit(*load_iris(return_X_y=True, as_frame=True))
        section = cls.__doc__.split("Attributes\n")[1]
        options = set(re.findall(r"^    (\w+_) : ", section, re.M))
        made = {name for name in vars(fitted) if name.endswith("_")}
        assert made <= options
        assert all(hasattr(fitted, name) for name in options)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_begins_with_a_title(path):
    text = path.read_text(encoding="utf-8")
    compile(text, path.name, "exec")
    title, line = re.match(r'"""\n(.+)\n(=+)\n', text).groups()
    assert len(title) == len(line)


def test_no_file_contains_an_absolute_path():
    # Joined here, so that this file doesn't contain the prefixes itself.
    starts = ["/" + name + "/" for name in ("home", "root", "work", "Users", "tmp")]
    pattern = re.compile("(?<![\\w.}])(?:" + "|".join(starts) + r")\w")
    kinds = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".rst", ".csv", ".cfg"}
    skipped = re.compile(r"^(\.(?!ci)|build$|dist$|_build$|gallery$|generated$)")
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not skipped.match(name)]
        for path in (Path(folder, name) for name in names):
            if path.suffix in kinds or path.name in ("Makefile", "run"):
                found = pattern.search(path.read_text(encoding="utf-8"))
                assert not found, f"{path.relative_to(ROOT)} names {found[0]}..."


def test_table_of_rooms_agrees_with_the_modules():
    text = ROOMS["PAGE"].read_text(encoding="utf-8")
    assert text == ROOMS["with_table"](text)


if __name__ == "__main__":
    wanted = [Path(name).resolve() for name in sys.argv[1:]] or PAGES
    for page in wanted:
        page.write_text(with_new_outputs(page.read_text(encoding="utf-8")), "utf-8")
        print(page.relative_to(ROOT))
