"""Initialisation of the weights of networks for tables."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sknas.nets._layers import Heads, InputLinear, Linear

INITS = ("uniform", "normal", "fitted")
MAX_INIT_ROWS = 1_000  # rows that the data-dependent initialisation reads
N_BIAS_ROWS = 5  # rows in the mean that a data-dependent bias subtracts
HEAD_GAIN = 0.1  # factor on the initial weights of the last layer
FITTED_CLASSIFIER_GAIN = 0.3  # the same, for "fitted" weights of a classifier


@torch.no_grad()
def initialize_weights(net: Any, init: str, features: Tensor) -> None:
    """Draw the weights of one network (K = 1) from torch's global generator.

    Parameters
    ----------
    net : TableNet
        A new network, whose weights are uniform as torch draws them.
    init : {"uniform", "normal", "fitted"}
        "uniform" keeps them. "normal" draws weights of variance 1 / inputs and biases
        of variance 1; the weights of the last layer are zero. "fitted" depends on the
        data: weights are normal too, but scaled so that each hidden unit has variance 1
        on the rows, and biases centre it on a random mean of rows.
    features : Tensor of shape (N, F)
        Training rows.

    References
    ----------
    Holzmüller, Grinsztajn, Steinwart: Better by Default: Strong Pre-Tuned MLPs and
    Boosted Trees on Tabular Data. arXiv:2407.04491, appendix A.
    """
    if init == "normal":
        for layer in net.modules():
            if isinstance(layer, Linear | InputLinear | Heads):
                nn.init.normal_(
                    layer.weight, std=1 / math.sqrt(max(layer.weight.shape[-2], 1))
                )
                nn.init.normal_(layer.bias)
    elif init == "fitted":
        _init_from_data(net, features)
    is_classifier = net.kind != "regression"
    fitted = FITTED_CLASSIFIER_GAIN if is_classifier else HEAD_GAIN
    gain = {"uniform": HEAD_GAIN, "normal": 0.0, "fitted": fitted}[init]
    # Outputs start near the mean target, so the first steps train the hidden layers.
    net.head.weight.mul_(gain)
    net.head.bias.zero_()


def _init_from_data(net: Any, features: Tensor) -> None:
    """Initialise each layer from its inputs, the first layer first."""
    rows = torch.randperm(len(features))[:MAX_INIT_ROWS]
    layers = [m for m in net.modules() if isinstance(m, Linear | InputLinear)]
    hooks = [layer.register_forward_pre_hook(_init_layer) for layer in layers]
    net.eval()
    net(features[rows.to(features.device)])
    net.train()
    for hook in hooks:
        hook.remove()


def _init_layer(layer: Linear | InputLinear, inputs: tuple[Tensor]) -> None:
    (x,) = inputs  # (1, N, F)
    n_inputs = layer.weight.shape[1]
    nn.init.normal_(layer.weight, std=1 / math.sqrt(max(n_inputs, 1)))
    scale = layer.input_scale if isinstance(layer, InputLinear) else 1.0
    h = x[0] @ (layer.weight * scale)[0]  # (N, H)
    if len(h) > 1:
        spread = h.std(dim=0, correction=0).clamp(min=1e-3)
        layer.weight.div_(spread)
        h = h / spread
    rows = torch.randint(len(h), (N_BIAS_ROWS, h.shape[1]), device=h.device)
    weights = torch.empty(rows.shape, device=h.device).exponential_()
    means = (h.gather(0, rows) * weights / weights.sum(dim=0)).sum(dim=0)
    layer.bias.copy_(-means)
