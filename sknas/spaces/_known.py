"""Where a search starts, after the default architecture.

Written by examples/benchmarks/portfolio.py, which learnt it on twelve open tables.
Learning rates are those of a classifier.
"""

from __future__ import annotations

from typing import Any

PORTFOLIO: tuple[dict[str, Any], ...] = (
    {
        "numeric_embedding": "piecewise",
        "n_bins": 16,
        "depth": 2,
        "width": 256,
        "activation": "relu",
        "ntk_lr": 0.045,
        "weight_decay": 0.05,
        "dropout": 0.25,
    },
    {
        "numeric_embedding": "piecewise",
        "n_bins": 48,
        "depth": 3,
        "width": 256,
        "activation": "silu",
        "ntk_lr": 0.03,
        "weight_decay": 0.02,
        "dropout": 0.1,
    },
    {
        "numeric_embedding": "piecewise",
        "n_bins": 48,
        "depth": 2,
        "width": 128,
        "activation": "silu",
        "ntk_lr": 0.04,
        "weight_decay": 0.05,
        "dropout": 0.15,
    },
    {
        "numeric_embedding": "periodic",
        "depth": 2,
        "width": 128,
        "ntk_lr": 0.04,
        "weight_decay": 0.02,
        "dropout": 0.15,
        "scale_speed": 6.0,
    },
    {
        "numeric_embedding": "piecewise",
        "n_bins": 48,
        "depth": 2,
        "width": 128,
        "activation": "relu",
        "ntk_lr": 0.027,
        "weight_decay": 0.1,
        "dropout": 0.25,
    },
    {
        "numeric_embedding": "piecewise",
        "n_bins": 16,
        "depth": 1,
        "width": 64,
        "activation": "silu",
        "ntk_lr": 0.01,
        "weight_decay": 0.3,
        "dropout": 0.35,
    },
    {
        "numeric_embedding": "none",
        "depth": 3,
        "width": 128,
        "ntk_lr": 0.06,
        "weight_decay": 0.0,
        "dropout": 0.25,
    },
    {
        "recipe": "uniform",
        "depth": 2,
        "width": 128,
        "lr": 0.01,
        "weight_decay": 0.02,
        "dropout": 0.15,
        "scale_speed": 6.0,
    },
    {
        "numeric_embedding": "piecewise",
        "n_bins": 48,
        "depth": 2,
        "width": 128,
        "activation": "silu",
        "ntk_lr": 0.009,
        "weight_decay": 0.05,
        "dropout": 0.35,
    },
    {
        "numeric_embedding": "piecewise",
        "n_bins": 48,
        "depth": 1,
        "width": 256,
        "activation": "relu",
        "ntk_lr": 0.06,
        "weight_decay": 0.3,
        "dropout": 0.5,
    },
    {"depth": 0, "ntk_lr": 0.02, "weight_decay": 0.05},
    {
        "depth": 2,
        "width": 256,
        "normalisation": "layer",
        "ntk_lr": 0.03,
        "weight_decay": 0.05,
        "dropout": 0.25,
        "n_bins": 16,
    },
)


_CONSTANT = {
    "recipe": "constant",
    "scale_speed": 0.0,
    "batch_size": 256,
    "activation": "relu",
}


# Published networks with their training. Holzmüller, Grinsztajn, Steinwart: Better by
# Default (arXiv:2407.04491) for RealMLP-TD and its short form TD-S; Gorishniy,
# Kotelnikov, Babenko: TabM (arXiv:2410.24210) for TabM-mini; Gorishniy, Rubachev,
# Khrulkov, Babenko: Revisiting Deep Learning Models for Tabular Data
# (arXiv:2106.11959) for ResNet and MLP.
NAMED: dict[str, dict[str, Any]] = {
    "realmlp-td-s": {
        "depth": 3,
        "width": 256,
        "activation": "selu",
        "dropout": 0.0,
        "numeric_embedding": "none",
        "embedding_size": 0,
        "scale_speed": 6.0,
        "recipe": "normal",
        "ntk_lr": 0.04,
        "batch_size": 256,
        "weight_decay": 0.0,
        "label_smoothing": 0.1,
    },
    "realmlp-td": {
        "depth": 3,
        "width": 256,
        "activation": "parametric-selu",
        "dropout": 0.15,
        "numeric_embedding": "periodic",
        "embedding_size": 8,
        "scale_speed": 6.0,
        "recipe": "fitted",
        "ntk_lr": 0.04,
        "batch_size": 256,
        "weight_decay": 0.02,
        "label_smoothing": 0.1,
    },
    "tabm-mini": {
        **_CONSTANT,
        "depth": 2,
        "width": 512,
        "dropout": 0.1,
        "packing": 32,
        "numeric_scale": "normal",
        "numeric_embedding": "projected",
        "n_bins": 48,
        "embedding_size": 0,
        "lr": 2e-3,
        "weight_decay": 3e-4,
    },
    "resnet": {
        **_CONSTANT,
        "depth": 2,
        "width": 128,
        "block": "resnet",
        "normalisation": "batch",
        "dropout": 0.25,
        "numeric_scale": "normal",
        "numeric_embedding": "none",
        "embedding_size": 8,
        "lr": 1e-3,
        "weight_decay": 0.01,
    },
    "mlp": {
        **_CONSTANT,
        "depth": 3,
        "width": 128,
        "dropout": 0.1,
        "numeric_scale": "normal",
        "numeric_embedding": "none",
        "embedding_size": 8,
        "lr": 1e-3,
        "weight_decay": 0.01,
    },
    "linear": {
        "depth": 0,
        "numeric_embedding": "none",
        "embedding_size": 0,
        "recipe": "uniform",
        "lr": 1e-2,
        "weight_decay": 0.01,
    },
}


# Where they differ for a regressor.
NAMED_REGRESSION: dict[str, dict[str, Any]] = {
    "realmlp-td-s": {"activation": "mish", "ntk_lr": 0.07, "label_smoothing": 0.0},
    "realmlp-td": {
        "activation": "parametric-mish",
        "ntk_lr": 0.2,
        "label_smoothing": 0.0,
    },
}
