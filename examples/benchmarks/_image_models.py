"""One fit of one model on one set of images, in the environment of that model.

    python _image_models.py MODEL SET SEED BUDGET LINE

images.py calls it. Packages that only some models need are imported by those models.
"""

import contextlib
import json
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn import metrics
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler

SETS = ("digits", "fashion_mnist", "flowers17_16px")
MAX_IMAGES = 10_000  # of a training set
CORES = 2


def read_images(path, seed):
    """Return training and test images of 8 bits, and their labels."""
    if path.name == "digits":
        X, y = load_digits(return_X_y=True)
        X = X.reshape(-1, 8, 8).astype(np.uint8)
        return train_test_split(X, y, test_size=0.25, random_state=seed, stratify=y)
    data = np.load(path.with_suffix(".npz"))
    X, y = data["X_train"], data["y_train"].astype(int)
    if len(X) > MAX_IMAGES:
        X, _, y, _ = train_test_split(
            X, y, train_size=MAX_IMAGES, random_state=0, stratify=y
        )
    return X, data["X_test"], y, data["y_test"].astype(int)


def flat(X):
    return X.reshape(len(X), -1)


def hgb(seed, budget):
    model = HistGradientBoostingClassifier(random_state=seed)
    return make_pipeline(FunctionTransformer(flat), model)


def mlp(seed, budget):
    model = MLPClassifier((256,), early_stopping=True, random_state=seed)
    return make_pipeline(FunctionTransformer(flat), MinMaxScaler(), model)


def resnet(seed, budget):
    """Return a small ResNet of three stages, trained for as long as a search."""
    import torch
    from torch import nn

    class Block(nn.Module):
        """Two convolutions and a shortcut."""

        def __init__(self, n_in, n_out):
            super().__init__()
            self.branch = nn.Sequential(
                nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),
                nn.BatchNorm2d(n_out),
                nn.ReLU(),
                nn.Conv2d(n_out, n_out, 3, padding=1, bias=False),
                nn.BatchNorm2d(n_out),
            )
            self.shortcut = nn.Conv2d(n_in, n_out, 1, bias=False)

        def forward(self, x):
            return torch.relu(self.branch(x) + self.shortcut(x))

    def tensor(X):
        X = X[:, None] if X.ndim == 3 else np.moveaxis(X, -1, 1)
        return torch.tensor(X, dtype=torch.float32) / 255

    class ResNet:
        """A scikit-learn classifier: SGD with momentum, one cosine schedule."""

        def fit(self, X, y):
            torch.manual_seed(seed)
            torch.set_num_threads(CORES)
            x, y = tensor(X), torch.tensor(y)
            self.mean, self.deviation = x.mean(), x.std()
            x = nn.functional.pad((x - self.mean) / self.deviation, (2,) * 4)
            stem = nn.Conv2d(x.shape[1], 16, 3, padding=1)
            stages = [Block(16, 16), nn.MaxPool2d(2), Block(16, 32), nn.MaxPool2d(2)]
            head = [
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(64, int(y.max()) + 1),
            ]
            self.net = nn.Sequential(stem, *stages, Block(32, 64), *head)
            self.net = self.net.to(memory_format=torch.channels_last)
            self._train(x, y)
            return self

        def _train(self, x, y):
            options = {"momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}
            is_half = torch.cpu.get_capabilities().get("avx512_bf16", False)
            optimizer = torch.optim.SGD(self.net.parameters(), 0.1, **options)
            start = time.perf_counter()
            while (share := (time.perf_counter() - start) / budget) < 1:
                optimizer.param_groups[0]["lr"] = 0.05 * (1 + np.cos(np.pi * share))
                rows = torch.randint(len(x), (128,))
                top, left = torch.randint(5, (2,))  # moved by up to 2 pixels
                height, width = x.shape[2] - 4, x.shape[3] - 4
                batch = x[rows, :, top : top + height, left : left + width]
                batch = batch.contiguous(memory_format=torch.channels_last)
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
                    loss = nn.functional.cross_entropy(self.net(batch), y[rows])
                loss.backward()
                optimizer.step()

        @torch.no_grad()
        def predict(self, X):
            self.net.eval()
            x = (tensor(X) - self.mean) / self.deviation
            parts = [self.net(part).argmax(1) for part in x.split(500)]
            return torch.cat(parts).numpy()

    return ResNet()


def autokeras(seed, budget):
    """AutoKeras over its own blocks, but for weights that it would have to download."""
    os.environ["KERAS_BACKEND"] = "torch"
    import autokeras
    import keras

    class Deadline(keras.callbacks.Callback):
        """AutoKeras knows no limit of time: it is stopped between two batches."""

        def __init__(self):
            super().__init__()
            self.end = time.perf_counter() + budget

        def on_train_batch_end(self, batch, logs=None):
            if time.perf_counter() > self.end:
                raise KeyboardInterrupt  # any other error is a failed trial to it

    class Block(autokeras.Block):
        """What its ImageBlock chooses among, without pretrained weights."""

        def build(self, hp, inputs=None):
            blocks = {
                "vanilla": autokeras.ConvBlock(),
                "resnet": autokeras.ResNetBlock(pretrained=False),
                "xception": autokeras.XceptionBlock(pretrained=False),
            }
            kind = hp.Choice("kind", list(blocks))
            with hp.conditional_scope("kind", [kind]):
                return blocks[kind].build(hp, inputs)

    class AutoKeras:
        """AutoKeras with the methods of scikit-learn."""

        def fit(self, X, y):
            keras.utils.set_random_seed(seed)
            node = autokeras.Normalization()(images := autokeras.ImageInput())
            node = autokeras.ClassificationHead()(Block()(node))
            options = {"max_trials": 100, "overwrite": True, "directory": "models"}
            self.model_ = autokeras.AutoModel(images, node, seed=seed, **options)
            X = X[..., None] if X.ndim == 3 else X
            with contextlib.suppress(KeyboardInterrupt):
                self.model_.fit(X, y, callbacks=[Deadline()], verbose=0)
            return self

        def predict(self, X):
            X = X[..., None] if X.ndim == 3 else X
            best = self.model_.tuner.get_best_model()
            return best.predict(X, verbose=0).argmax(axis=1)

    return AutoKeras()


def sknas(seed, budget):
    from sknas import NASClassifier

    return NASClassifier(max_time=budget, random_state=seed)


def sknas_gradient(seed, budget):
    from sknas import NASClassifier

    return NASClassifier(
        "cell", strategy="gradient", max_time=budget, random_state=seed
    )


MODELS = {
    model.__name__: model
    for model in (hgb, mlp, resnet, autokeras, sknas, sknas_gradient)
}


def measure(model, path, seed, budget):
    """Seconds of a fit, and its accuracy on the images held out."""
    X, X_test, y, y_test = read_images(path, seed)
    estimator = MODELS[model](seed, budget)
    started = time.perf_counter()
    estimator.fit(X, y)
    fitted = time.perf_counter()
    predicted = estimator.predict(X_test)
    line = {
        "images": len(X),
        "fit_s": round(fitted - started, 1),
        "predict_s": round(time.perf_counter() - fitted, 3),
        "acc": metrics.accuracy_score(y_test, predicted),
    }
    if hasattr(estimator, "best_score_"):
        line |= {
            "best_score": estimator.best_score_,
            "n_trials": estimator.n_trials_,
            "members": len(estimator.ensemble_),
            "found": estimator.search_space_.describe(estimator.best_architecture_),
        }
    return line


def main(model, path, seed, budget, line):
    warnings.simplefilter("ignore")
    measured = measure(model, Path(path), int(seed), float(budget))
    Path(line).write_text(json.dumps(measured))


if __name__ == "__main__":
    main(*sys.argv[1:])
