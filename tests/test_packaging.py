"""The sdist, the wheel, and the versions that the wheel requires."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email.parser import Parser
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import sknas

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEPENDENCIES = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {
    extra: [Requirement(line) for line in lines]
    for extra, lines in PROJECT["optional-dependencies"].items()
}

# Import every module of the package, and print where the package is.
IMPORT_ALL = """
import importlib, importlib.metadata, json, pkgutil, sys
import sknas
for module in pkgutil.walk_packages(sknas.__path__, "sknas."):
    importlib.import_module(module.name)
print(json.dumps({
    "file": sknas.__file__,
    "version": sknas.__version__,
    "metadata": importlib.metadata.version("sknas"),
    "path": sys.path,
}))
"""


def read_pins(name):
    """Return the pinned version of each package in a file of constraints, in order."""
    pins = {}
    for line in (ROOT / name).read_text().splitlines():
        if line and not line.startswith("#"):
            package, version = line.split("==")
            pins[canonicalize_name(package)] = Version(version)
    return pins


def run(*command, cwd):
    """Run a command and return its output; print all output if it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """Build the sdist, and the wheel from it, in a folder."""
    # No isolation: the back end is installed, and tests use no network.
    out = tmp_path_factory.mktemp("dist")
    build = (sys.executable, "-I", "-m", "build", "--no-isolation")
    run(*build, "--outdir", str(out), str(ROOT), cwd=out)
    return out


@pytest.fixture(scope="module")
def wheel(dist):
    (path,) = dist.glob("*.whl")
    return path


@pytest.mark.packaging
def test_sdist_holds_what_a_packager_needs(dist):
    with tarfile.open(dist / f"sknas-{sknas.__version__}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    pages = ["CHANGELOG", "CODE_OF_CONDUCT", "CONTRIBUTING", "README", "SECURITY"]
    wanted = {f"{page}.md" for page in pages} | {"CITATION.cff", "LICENSE", "Makefile"}
    wanted |= {"constraints.txt", "constraints-floor.txt", "pyproject.toml"}
    wanted |= {"docs/conf.py", "examples/demo.py", "examples/GALLERY_HEADER.rst"}
    wanted |= {".ci/run", ".github/workflows/ci.yml", "tests/test_packaging.py"}
    assert wanted <= names
    folders = {name.split("/")[0] for name in names if "/" in name}
    assert folders == {".ci", ".github", "docs", "examples", "sknas", "tests"}
    assert not any(re.search("benchmarks/results|_build|__pycache__", n) for n in names)


@pytest.mark.packaging
def test_wheel_holds_only_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    info = f"sknas-{sknas.__version__}.dist-info"
    assert "sknas/__init__.py" in names
    assert "sknas/py.typed" in names
    assert f"{info}/licenses/LICENSE" in names
    assert {name.split("/")[0] for name in names} == {"sknas", info}
    code = [name for name in names if name.startswith("sknas/")]
    assert {Path(name).suffix for name in code} <= {".py", ".typed"}


@pytest.mark.packaging
def test_wheel_holds_every_module(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.endswith(".py")}
    assert packed == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "sknas").rglob("*.py")
    }


@pytest.mark.packaging
def test_wheel_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        info = f"sknas-{sknas.__version__}.dist-info"
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
    assert metadata["Name"] == "sknas"
    assert metadata["Version"] == sknas.__version__
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert set(metadata.get_all("Provides-Extra")) == EXTRAS.keys()
    # A plain install requires no developer tools.
    required = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    plain = {str(one) for one in required if one.marker is None}
    assert plain == {str(one) for one in DEPENDENCIES}


@pytest.mark.packaging
def test_wheel_imports_in_a_clean_environment(wheel, tmp_path):
    env = tmp_path / "env"
    venv.EnvBuilder(with_pip=False, symlinks=os.name != "nt").create(env)
    where = {"base": str(env), "platbase": str(env)}
    site = Path(sysconfig.get_path("purelib", "venv", where))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # The dependencies come from this environment. Python ignores .pth files in a folder
    # that another .pth file adds, so an editable install doesn't add the checkout.
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(here)) + "\n")

    python = Path(sysconfig.get_path("scripts", "venv", where)) / "python"
    found = json.loads(run(str(python), "-I", "-c", IMPORT_ALL, cwd=tmp_path))

    assert Path(found["file"]).resolve().parent == (site / "sknas").resolve()
    assert str(ROOT) not in found["path"]
    assert found["version"] == found["metadata"] == sknas.__version__


def test_each_dependency_has_a_floor_and_no_ceiling():
    for requirement in DEPENDENCIES:
        operators = [part.operator for part in requirement.specifier]
        assert operators == [">="], f"{requirement}: want one floor"


def test_floors_agree_with_the_constraints():
    pins = read_pins("constraints-floor.txt")
    for requirement in DEPENDENCIES:
        (floor,) = requirement.specifier
        assert pins[canonicalize_name(requirement.name)] == Version(floor.version)


def test_floor_constraints_pin_the_same_tools():
    pins, tested = read_pins("constraints-floor.txt"), read_pins("constraints.txt")
    direct = {canonicalize_name(requirement.name) for requirement in DEPENDENCIES}
    for name in pins.keys() - direct:
        assert pins[name] == tested[name], name
    tools = {canonicalize_name(requirement.name) for requirement in EXTRAS["test"]}
    assert tools <= pins.keys()


def test_constraints_pin_every_requirement():
    pins = read_pins("constraints.txt")
    for requirement in chain(DEPENDENCIES, *EXTRAS.values()):
        version = pins[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, f"{requirement}: pinned to {version}"


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-floor.txt"])
def test_constraints_pin_torch_first(name):
    # Without a pin, torch installs gigabytes of packages for GPUs.
    assert next(iter(read_pins(name))) == "torch"


def test_changelog_has_a_section_for_this_version():
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert {"Unreleased", sknas.__version__} & set(headings)


def test_citation_agrees_with_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert str(citation["version"]) == sknas.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]
    assert citation["keywords"] == PROJECT["keywords"]


def test_ci_can_be_run():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
