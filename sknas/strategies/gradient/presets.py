"""Published methods of search by gradient."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """A method of search by gradient.

    Learning rates of the weights and batch sizes are those for images.

    Parameters
    ----------
    relaxation : str, default="softmax"
        A key of `RELAXATIONS`.
    regulariser : str, default="none"
        A key of `REGULARISERS`.
    partial_channels : int, default=1
        1 / `partial_channels` of the channels go through the mixtures.
    discretisation : {"argmax", "perturbation", "retrain"}, default="argmax"
        How an architecture is derived.
    order : {1, 2}, default=1
        2 if the gradient of the alphas looks one step of the weights ahead.
    arch_optimizer : {"adam", "sgd", "momentum", "rmsprop"}, default="adam"
        Update rule of the alphas.
    arch_lr : float, default=3e-4
        Learning rate of the alphas in a search of the published length.
    arch_weight_decay : float, default=1e-3
        Weight decay of the alphas.
    lr, last_lr : float, default=0.025 and 0.001
        Learning rate of the weights at the start and the end of a cosine.
    weight_decay : float, default=3e-4
        Weight decay of the weights.
    dropout : float, default=0.0
        Dropout probability before the last layer.
    batch_size : int, default=64
        Rows in a batch.
    warmup : float, default=0.0
        Share of each stage in which only the weights are trained.
    temperature : (float, float), default=(1.0, 1.0)
        Temperature of the relaxation at the start and the end.
    stages : tuple of float, default=(1.0,)
        Share of the options that are active in each stage.
    is_single_level : bool, default=False
        True if weights and alphas are trained on the same rows.
    """

    relaxation: str = "softmax"
    regulariser: str = "none"
    partial_channels: int = 1
    discretisation: str = "argmax"
    order: int = 1
    arch_optimizer: str = "adam"
    arch_lr: float = 3e-4
    arch_weight_decay: float = 1e-3
    lr: float = 0.025
    last_lr: float = 0.001
    weight_decay: float = 3e-4
    dropout: float = 0.0
    batch_size: int = 64
    warmup: float = 0.0
    temperature: tuple[float, float] = (1.0, 1.0)
    stages: tuple[float, ...] = (1.0,)
    is_single_level: bool = False


PRESETS = {
    "darts": Preset(),
    "darts-2nd": Preset(order=2),
    "snas": Preset(relaxation="gumbel", temperature=(5.0, 0.5), is_single_level=True),
    "gdas": Preset(relaxation="gumbel-st", temperature=(10.0, 0.1), warmup=0.25),
    "pc-darts": Preset(
        partial_channels=4,
        arch_lr=6e-4,
        lr=0.1,
        last_lr=0.0,
        batch_size=256,
        warmup=0.3,
    ),
    "p-darts": Preset(
        regulariser="skip-dropout", arch_lr=6e-4, warmup=0.4, stages=(1.0, 5 / 8, 3 / 8)
    ),
    "fair-darts": Preset(
        relaxation="sigmoid", regulariser="zero-one", arch_lr=5e-3, batch_size=128
    ),
    "smooth-darts": Preset(regulariser="smooth"),
    "drnas": Preset(
        relaxation="dirichlet",
        partial_channels=4,
        arch_lr=6e-4,
        lr=0.1,
        warmup=0.4,
        stages=(1.0, 0.5),
    ),
    "beta-darts": Preset(regulariser="beta"),
    "darts-pt": Preset(discretisation="perturbation"),
}
