"""sknas and its peers on images: accuracy and seconds.

    python examples/benchmarks/images.py --data DIR --budget 300

DIR holds ``fashion_mnist.npz`` and ``flowers17_16px.npz``; digits are scikit-learn's, a
quarter of them held out by the seed. Each fit runs in a process of its own, in the
environment of its model, which is created when it is first needed.
"""

from pathlib import Path

from _image_models import MODELS, SETS
from _lines import Lines, parse_arguments
from _processes import run


def main():
    arguments = parse_arguments(
        __doc__,
        data={"type": Path, "required": True},
        budget={"type": float, "default": 300.0},
        models={"nargs": "+", "choices": list(MODELS), "default": list(MODELS)},
        sets={"nargs": "+", "choices": SETS, "default": SETS},
        seeds={"nargs": "+", "type": int, "default": [0]},
    )
    lines = Lines(arguments.results / "images.jsonl")
    for seed in arguments.seeds:
        for data in arguments.sets:
            for model in arguments.models:
                key = {
                    "model": model,
                    "data": data,
                    "seed": seed,
                    "budget": arguments.budget,
                }
                arguments_of_run = {**key, "data": (arguments.data / data).resolve()}
                lines.measure(
                    key, lambda a=arguments_of_run: run("_image_models.py", **a)
                )


if __name__ == "__main__":
    main()
