"""Fits in processes of their own, each in the environment of its model."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENTS = HERE / ".environments"
# Other models run in the environment of this script. constraints.txt says why torch is
# pinned.
COMMON = ["pandas==3.1.1", "pyarrow==26.0.1", "scikit-learn==1.9.1"]
TORCH = "torch==2.13.0"
REQUIREMENTS = {
    "catboost": [*COMMON, "catboost==1.2.10"],
    "lightgbm": [*COMMON, "lightgbm==4.7.0"],
    "realmlp": [*COMMON, TORCH, "pytabkit==1.7.3"],
    "autogluon": [TORCH, "scikit-learn==1.9.1", "autogluon.tabular[all]==1.6.3"],
    # Later versions of keras reject its layers; six is an undeclared dependency.
    "autokeras": [
        *(TORCH, "scikit-learn==1.9.1"),
        *("autokeras==3.0.0", "keras==3.10.0", "six==1.17.0"),
    ],
}
# No build of torchvision matches this torch, and no table needs it.
UNWANTED = {"autogluon": "torchvision"}


def run(script, model, data, seed, budget):
    """Return what `script` measures in one fit, in a temporary folder.

    A fit that fails, or takes more than twice the budget plus two minutes, returns the
    error text. `load` is the load of the machine at the start.
    """
    measured = {"load": round(os.getloadavg()[0], 2)}
    try:
        return measured | in_process(
            python_of(model),
            (HERE / script, model, data, seed, budget),
            seconds=2 * budget + 120,
        )
    except (RuntimeError, TimeoutError, subprocess.CalledProcessError) as error:
        return {**measured, "error_text": str(error)}


def in_process(python, options, seconds):
    """Run a script, and return what it writes to the file of its last argument."""
    with tempfile.TemporaryDirectory() as folder:
        line, log = Path(folder, "line.json"), Path(folder, "log.txt")
        command = [python, *map(str, options), line]
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its workers end with it
            )
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                raise TimeoutError(f"more than {seconds:g} s") from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if not line.exists():
            said = log.read_text(errors="replace").strip()
            raise RuntimeError(said[-500:] or f"exit status {process.returncode}")
        return json.loads(line.read_text())


def python_of(model):
    """Return the Python of a model's environment, creating it if it is missing."""
    if model not in REQUIREMENTS:
        return sys.executable
    folder = ENVIRONMENTS / model
    python, stamp = folder / "bin" / "python", folder / ".stamp"
    wanted = "\n".join(REQUIREMENTS[model])
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"Making {folder} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", *REQUIREMENTS[model]], check=True)
        if model in UNWANTED:
            subprocess.run([*pip, "uninstall", "--yes", UNWANTED[model]], check=True)
        stamp.write_text(wanted)
    return python
