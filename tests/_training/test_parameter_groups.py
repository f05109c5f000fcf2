"""Parameter groups: declared by the library's layers, defaults for other modules."""

import numpy as np
import pytest
import torch
from torch import nn

from sknas._problem import ImageSpec, TaskSpec
from sknas._training.optimizer import SLOW_LR_MULTIPLIER, Optimizer
from sknas._training.parameter_groups import GroupedModule, LRGroup, collect_groups
from sknas.nets._cell import CELL_KINDS
from sknas.spaces import CellSpace, ImageSpace, TableSpace

LR, SPEED = 0.02, 6.0
ARCHITECTURE = {"recipe": "fitted", "ntk_lr": LR, "scale_speed": SPEED}
TORCH_LAYERS = (nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm)
SLOW = {"bias", "share", "frequency", "phase", "mixing", "shift"}
IMAGES = TaskSpec(
    "multiclass", 3, 100, image=ImageSpec((1, 28, 28), np.zeros(1), np.ones(1))
)


@pytest.fixture
def nets(task, rng):
    """Networks that together have every kind of layer, and three supernets."""
    tables, images = TableSpace(), ImageSpace(stages=(1, 2), channels=(4, 8))
    cells = [CellSpace(kind, cells=(2,), channels=(4,)) for kind in CELL_KINDS]
    nets = [tables.supernet(task), *(space.supernet(IMAGES) for space in cells)]
    drawn = [*tables.sample(40, rng), tables.named("tabm-mini", task)]
    nets += [tables.build(architecture, task) for architecture in drawn]
    for space in (images, *cells):
        nets += [space.build(a, IMAGES) for a in space.sample(10, rng)]
    return nets


def test_every_parameter_of_our_layers_declares_its_group(nets):
    seen = set()
    for module in {module for net in nets for module in net.modules()}:
        own = {name for name, _ in module.named_parameters(recurse=False)}
        if isinstance(module, GroupedModule):
            assert set(module.lr_groups) == own
            seen.add(type(module))
        else:
            assert not own or isinstance(module, TORCH_LAYERS)
    layers = GroupedModule.__subclasses__()
    assert seen == {cls for cls in layers if cls.__module__.startswith("sknas.")}


def test_groups_have_the_published_rates_and_decay(nets):
    """Rates by group equal the former rates by parameter name."""
    for net in nets:
        optimizer = Optimizer(net, [ARCHITECTURE | {"weight_decay": 0.1}])
        decayed = {id(parameter) for parameter, _ in optimizer.decayed}
        named = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
        for (name, parameter), rate in zip(named, optimizer.rates, strict=True):
            kind = name.rpartition(".")[2]
            is_weight = kind == "weight" and parameter.ndim >= 2
            factor = SPEED if kind == "input_scale" else 1.0
            if is_weight:
                factor = max(parameter.shape[-2], 1) ** -0.5
            elif kind in SLOW:
                factor = SLOW_LR_MULTIPLIER
            assert float(rate) == pytest.approx(LR * factor), name
            assert (id(parameter) in decayed) == is_weight, name


def test_undeclared_modules_are_grouped_by_torch_parameter_names():
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.GRU(2, 2))
    net.shift = nn.Parameter(
        torch.zeros(2, 2)
    )  # only the names of torch have a meaning
    groups = collect_groups(net)
    assert {name: groups[p] for name, p in net.named_parameters()} == {
        "shift": LRGroup.PLAIN,
        "0.weight": LRGroup.WEIGHT,
        "0.bias": LRGroup.SLOW,
        "1.weight": LRGroup.PLAIN,
        "1.bias": LRGroup.SLOW,
        "2.weight_ih_l0": LRGroup.PLAIN,
        "2.weight_hh_l0": LRGroup.PLAIN,
        "2.bias_ih_l0": LRGroup.PLAIN,
        "2.bias_hh_l0": LRGroup.PLAIN,
    }


def test_a_shared_parameter_is_in_one_group():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    net = nn.Sequential(first, second)
    assert list(collect_groups(net)) == list(net.parameters())


def test_parameter_without_a_declared_group_is_an_error():
    class Undeclared(GroupedModule):
        lr_groups = {}  # noqa: RUF012

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, 2))

    with pytest.raises(KeyError, match="weight"):
        collect_groups(Undeclared())
