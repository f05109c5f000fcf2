"""Trained modules as skorch nets that are ready to predict."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

from sknas._history import Architecture
from sknas._problem import TaskSpec
from sknas._training.isolation import isolated
from sknas._training.loss import WeightedLoss
from sknas.spaces import Space

if TYPE_CHECKING:
    from sknas.trainers._skorch_net import TensorNet
else:  # for typing.get_type_hints, without skorch
    TensorNet = Any


def build_network(
    space: Space, architecture: Architecture, task: TaskSpec
) -> nn.Module:
    return space.build(architecture, task)


def to_inference_net(
    space: Space,
    architecture: Architecture,
    task: TaskSpec,
    build: Callable[..., nn.Module] = build_network,
    **options: Any,
) -> TensorNet:
    """Build a network in a skorch net that predicts, on the CPU.

    Load what was trained into its `module_`. A file holds these arguments and the
    `state_dict` of the network, which is built again when the file is loaded.

    Parameters
    ----------
    space : Space
        Builds the network.
    architecture : Architecture
        Its architecture.
    task : TaskSpec
        The task that it is built for.
    build : callable, default=build_network
        Builds a network that maps encoded rows to (1, N, C), from the space, the
        architecture, the task and the options.
    **options
        Further arguments of `build`.

    Returns
    -------
    TensorNet
        Ready to predict.
    """
    options = {f"module__{name}": option for name, option in options.items()}
    with isolated(0, "cpu"):
        net = wrap(space, architecture, task, build, **options)
    prepare_inference(net)
    return net


def wrap(
    space: Space,
    architecture: Architecture,
    task: TaskSpec,
    build: Callable[..., nn.Module] = build_network,
    **options: Any,
) -> TensorNet:
    """Build a network in a skorch net."""
    # skorch is imported by the first net, not by sknas.
    from sknas.trainers._skorch_net import TensorNet

    return TensorNet(
        build,
        module__space=space,
        module__architecture=architecture,
        module__task=task,
        criterion=WeightedLoss,
        criterion__kind=task.kind,
        criterion__label_smoothing=(architecture.get("label_smoothing", 0.0),),
        optimizer=architecture,
        train_split=None,
        verbose=0,
        **options,
    ).initialize()


def prepare_inference(net: TensorNet) -> None:
    """Drop what only training needs; a net on the CPU can be loaded anywhere."""
    net.optimizer_ = None
    if net.callbacks_:
        net.set_params(callbacks=None)
    net.callbacks_ = []
    net.module_.to("cpu").eval()
    net.device = "cpu"
