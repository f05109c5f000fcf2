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
