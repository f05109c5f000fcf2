"""Groups of parameters, by weight decay and learning rate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import StrEnum

from torch import nn


class LRGroup(StrEnum):
    """Group of a parameter, which sets its weight decay and learning rate."""

    WEIGHT = "weight"  # decays; with NTK, learning rate / sqrt(inputs of the layer)
    SLOW = "slow"  # with NTK, a tenth of the learning rate
    INPUT_SCALE = "input_scale"  # learning rate times `scale_speed`
    PLAIN = "plain"  # the learning rate itself


class GroupedModule(nn.Module, ABC):
    """A module that declares the groups of its parameters."""

    @property
    @abstractmethod
    def lr_groups(self) -> Mapping[str, LRGroup]:
        """Groups of the module's own parameters, by name; a class attribute will do."""


def collect_groups(net: nn.Module) -> dict[nn.Parameter, LRGroup]:
    """Return the groups of all parameters, in the order of `net.parameters()`.

    A parameter that several modules share is in the group of the first of them.
    """
    groups: dict[nn.Parameter, LRGroup] = {}
    for module in net.modules():
        for name, parameter in module.named_parameters(recurse=False):
            groups.setdefault(parameter, _find_group(module, name, parameter))
    return groups


def _find_group(module: nn.Module, name: str, parameter: nn.Parameter) -> LRGroup:
    """Return the declared group of a parameter, else the default by torch's names.

    In modules that declare nothing, such as torch's own layers, a `weight` of two axes
    or more is a weight, a `bias` is slow, and any other parameter is plain.
    """
    if isinstance(module, GroupedModule):
        return module.lr_groups[name]
    if name == "weight" and parameter.ndim >= 2:
        return LRGroup.WEIGHT
    return LRGroup.SLOW if name == "bias" else LRGroup.PLAIN
