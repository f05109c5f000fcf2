"""Search by gradient under its published names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """What makes a method of search by gradient.

    Rates of weights and batches are those of networks for images.

    Parameters
    ----------
    relaxation : str, default="softmax"
        A key of `RELAXATIONS`.
    regulariser : str, default="none"
        A key of `REGULARISERS`.
    partial_channels : int, default=1
        One of so many channels goes through the mixtures.
    discretisation : {"argmax", "perturbation", "retrain"}, default="argmax"
        How an architecture is derived.
    order : {1, 2}, default=1
        Whether the gradient looks one step of the weights ahead.
    arch_optimizer : {"adam", "sgd", "momentum", "rmsprop"}, default="adam"
        What moves the logits.
    arch_lr : float, default=3e-4
        Its rate in a search as long as the published ones; short ones are faster.
    arch_weight_decay : float, default=1e-3
        Its weight decay.
    lr, last_lr : float, default=0.025 and 0.001
        Rate of the weights, at first and at the end of a cosine.
    weight_decay : float, default=3e-4
        Of the weights.
    dropout : float, default=0.0
        Probability with which features before the last layer are dropped.
    batch_size : int, default=64
        Rows of a batch.
    warmup : float, default=0.0
        Share of each stage in which the weights alone are trained.
    temperature : (float, float), default=(1.0, 1.0)
        Of random weights, at first and at the end.
    kept : tuple of float, default=(1.0,)
        Share of the options that are kept in each stage.
    is_single_level : bool, default=False
        Whether weights and logits are trained on the same rows.
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
    kept: tuple[float, ...] = (1.0,)
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
        regulariser="skip-dropout", arch_lr=6e-4, warmup=0.4, kept=(1.0, 5 / 8, 3 / 8)
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
        kept=(1.0, 0.5),
    ),
    "beta-darts": Preset(regulariser="beta"),
    "darts-pt": Preset(discretisation="perturbation"),
}
