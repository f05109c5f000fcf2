"""Where the weights of a network start."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sknas.nets._layers import InputLinear, Linear
from sknas.nets._table import Heads, TableNet

STARTS = ("uniform", "normal", "fitted")
N_ROWS = 1_000  # rows that fitted weights look at
N_MIXED = 5  # rows that a fitted bias is a mean of
HEAD_GAIN = {True: 0.3, False: 0.1}  # of the last layer: classification, regression
UNIFORM_HEAD_GAIN = 0.1


@torch.no_grad()
def initialize_weights(net: TableNet, start: str, features: Tensor) -> None:
    """Draw the weights of one network (K = 1) by torch's random state.

    Parameters
    ----------
    net : TableNet
        Just made, its weights uniform as torch draws them.
    start : {"uniform", "normal", "fitted"}
        ``uniform`` keeps them. ``normal`` draws weights of variance 1 / inputs and
        biases of variance 1, and starts the last layer at zero. ``fitted`` draws
        normal weights too, but scales them so that each hidden unit has variance 1 on
        the rows, and centers it near a random mixture of rows.
    features : Tensor of shape (N, F)
        Training rows.

    References
    ----------
    Holzmüller, Grinsztajn, Steinwart: Better by Default: Strong Pre-Tuned MLPs and
    Boosted Trees on Tabular Data. arXiv:2407.04491, appendix A.
    """
    if start == "normal":
        for layer in net.modules():
            if isinstance(layer, Linear | InputLinear | Heads):
                nn.init.normal_(
                    layer.weight, std=1 / math.sqrt(max(layer.weight.shape[-2], 1))
                )
                nn.init.normal_(layer.bias)
    elif start == "fitted":
        _fit_layers(net, features)
    gain = {
        "uniform": UNIFORM_HEAD_GAIN,
        "normal": 0.0,
        "fitted": HEAD_GAIN[net.kind != "regression"],
    }[start]
    # Starting near the mean answer leaves the first steps to the hidden layers.
    net.head.weight.mul_(gain)
    net.head.bias.zero_()


def _fit_layers(net: TableNet, features: Tensor) -> None:
    """Fit each layer to what it is given, from the first to the last."""
    chosen = torch.randperm(len(features))[:N_ROWS]
    layers = [m for m in net.modules() if isinstance(m, Linear | InputLinear)]
    hooks = [layer.register_forward_pre_hook(_fit_layer) for layer in layers]
    net.eval()
    net(features[chosen.to(features.device)])
    net.train()
    for hook in hooks:
        hook.remove()


def _fit_layer(layer: Linear | InputLinear, inputs: tuple[Tensor]) -> None:
    (x,) = inputs  # (1, N, F)
    n_inputs = layer.weight.shape[1]
    nn.init.normal_(layer.weight, std=1 / math.sqrt(max(n_inputs, 1)))
    scale = layer.input_scale if isinstance(layer, InputLinear) else 1.0
    h = x[0] @ (layer.weight * scale)[0]  # (N, H)
    if len(h) > 1:
        spread = h.std(dim=0, correction=0).clamp(min=1e-3)
        layer.weight.div_(spread)
        h = h / spread
    rows = torch.randint(len(h), (N_MIXED, h.shape[1]), device=h.device)
    shares = torch.empty(rows.shape, device=h.device).exponential_()
    mixed = (h.gather(0, rows) * shares / shares.sum(dim=0)).sum(dim=0)
    layer.bias.copy_(-mixed)
