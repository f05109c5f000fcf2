"""Known architectures, given by the choices that are not at their defaults."""

from __future__ import annotations

from typing import Any

# Choices of a training at a constant learning rate.
_CONSTANT = {
    "recipe": "constant",
    "scale_speed": 0.0,
    "batch_size": 256,
    "activation": "relu",
}


# Published networks for tables, with their training.
# RealMLP-TD and its short form TD-S: Holzmüller, Grinsztajn, Steinwart: Better by
# Default. arXiv:2407.04491.
# TabM-mini: Gorishniy, Kotelnikov, Babenko: TabM. arXiv:2410.24210.
# ResNet and MLP: Gorishniy, Rubachev, Khrulkov, Babenko: Revisiting Deep Learning
# Models for Tabular Data. arXiv:2106.11959.
PUBLISHED: dict[str, dict[str, Any]] = {
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


# Choices that differ for a regressor.
PUBLISHED_REGRESSION: dict[str, dict[str, Any]] = {
    "realmlp-td-s": {"activation": "mish", "ntk_lr": 0.07, "label_smoothing": 0.0},
    "realmlp-td": {
        "activation": "parametric-mish",
        "ntk_lr": 0.2,
        "label_smoothing": 0.0,
    },
}

IMAGE_NETWORKS: tuple[dict[str, Any], ...] = (
    {"block": "residual", "stem": False, "blocks": 1, "channels": 16},
    {"block": "plain", "channels": 16},
    {"block": "plain", "blocks": 1, "channels": 32},
    {"block": "separable", "channels": 32, "lr": 2e-2},
    {
        **{"block": "plain", "stages": 2, "blocks": 1},
        **{"channels": 32, "kernel_size": 5},
        **{"head": "dense", "dropout": 0.25, "lr": 3e-3},
    },
)


def _bench_cell(*operations: str) -> dict[str, str]:
    """Return a cell of NAS-Bench-201, given the operations in the published order."""
    edges = [(start, end) for end in range(1, 4) for start in range(end)]
    names = [f"edge_{start}_{end}" for start, end in edges]
    return dict(zip(names, operations, strict=True))


def _darts_cell(cell: str, *nodes: tuple[str, str, str]) -> dict[str, str]:
    """Return a cell of DARTS, given the inputs of each node and its two operations."""
    parts = ("inputs", "first", "second")
    return {
        f"{cell}_{number}_{part}": value
        for number, node in enumerate(nodes, start=2)
        for part, value in zip(parts, node, strict=True)
    }


# The best cell of NAS-Bench-201 on CIFAR-10 (arXiv:2001.00326) and its residual block;
# the cells that DARTS found by second-order gradients (arXiv:1806.09055).
PUBLISHED_CELLS: dict[str, tuple[dict[str, str], ...]] = {
    "nas-bench-201": (
        _bench_cell("conv_3", "conv_3", "conv_3", "skip", "conv_3", "conv_3"),
        _bench_cell("conv_3", "none", "conv_3", "skip", "none", "skip"),
    ),
    "darts": (
        {
            **_darts_cell(
                "normal",
                ("0,1", "sep_conv_3", "sep_conv_3"),
                ("0,1", "sep_conv_3", "sep_conv_3"),
                ("0,1", "skip", "sep_conv_3"),
                ("0,2", "skip", "dil_conv_3"),
            ),
            **_darts_cell(
                "reduction",
                ("0,1", "max_pool_3", "max_pool_3"),
                ("1,2", "max_pool_3", "skip"),
                ("0,2", "max_pool_3", "skip"),
                ("1,2", "max_pool_3", "skip"),
            ),
        },
    ),
}

# Architectures for tables that a search starts with, after the default one. Written by
# examples/benchmarks/portfolio.py, which learnt them on twelve open tables; learning
# rates are those of a classifier.
LEARNT: tuple[dict[str, Any], ...] = (
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
