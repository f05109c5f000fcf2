"""Convolutional networks: blocks, pooling, heads, initial weights."""

import pickle
import re

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from sknas._problem import ImageSpec
from sknas.exceptions import InvalidParameterError
from sknas.nets import (
    HEADS,
    IMAGE_ACTIVATIONS,
    IMAGE_BLOCKS,
    IMAGE_NORMALISATIONS,
    POOLINGS,
    ConvNet,
    Dropout,
)
from sknas.nets._conv import BatchNorm2d, Head, Residual, _LayerFactory, map_size

SHAPES = [(1, 8, 8), (3, 16, 13)]


def make_net(shape=(1, 8, 8), n_outputs=3, seed=0, **options):
    torch.manual_seed(seed)
    image = ImageSpec(shape, np.zeros(shape[0]), np.ones(shape[0]))
    usual = {"blocks": (1, 1), "channels": (4, 6)}
    return ConvNet(image, n_outputs, **usual | options)


def draw(shape=(1, 8, 8), n=5, seed=1):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def with_active_branches(net):
    """Return the network with non-zero residual branches."""
    for module in net.modules():
        if isinstance(module, Residual):
            nn.init.constant_(module.branch[-1].weight, 0.1)
    return net


def n_params(net):
    return sum(p.numel() for p in net.parameters())


EACH = [
    *({"block": word} for word in IMAGE_BLOCKS),
    *({"activation": word, "block": "residual"} for word in IMAGE_ACTIVATIONS),
    *({"normalisation": word} for word in IMAGE_NORMALISATIONS),
    *({"pooling": word} for word in POOLINGS),
    *({"head": word} for word in HEADS),
    *({"kernel_size": size} for size in (1, 2, 3, 4, 5, 6, 7)),
    *({"pool_size": size} for size in (2, 3, 4)),
    {"block": "inverted", "kernel_size": 4, "blocks": (2, 3)},
    {"dropout": 0.5, "flip": True, "shift": 1, "cutout": True},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", EACH, ids=str)
def test_outputs_and_gradients_are_finite(shape, options):
    net = with_active_branches(make_net(shape, **options))
    for is_training in (False, True):
        outputs = net.train(is_training)(draw(shape))
        assert outputs.shape == (1, 5, 3) and outputs.dtype == torch.float32
        assert torch.isfinite(outputs).all()
    (outputs * draw((5, 3), n=1)).sum().backward()
    for name, parameter in net.named_parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.any(), name


@pytest.mark.parametrize("block", IMAGE_BLOCKS)
def test_the_output_of_an_image_does_not_depend_on_other_images(block):
    net = with_active_branches(make_net(block=block)).eval()
    x = draw()
    with torch.no_grad():
        assert_allclose(net(x[1:3]), net(x)[:, 1:3], atol=1e-6)


def test_uint8_and_float_images_give_equal_outputs():
    x = torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8)
    net = make_net().eval()
    assert torch.equal(net(x), net(x.float()))


# ------------------------------------------------------------------------------ blocks

HEAD = 2 * 6 + 6 * 3 + 3
NORMS = 2 * (4 + 6)  # scale and shift of the two stages
PARAMETERS = {
    "plain": ({}, 9 * 4 + 9 * 4 * 6 + NORMS + HEAD),
    "without normalisation": (
        {"normalisation": "none"},
        9 * 4 + 4 + 9 * 4 * 6 + 6 + HEAD - 2 * 6,
    ),
    "5 x 5": ({"kernel_size": 5}, 25 * 4 + 25 * 4 * 6 + NORMS + HEAD),
    "4 x 4": ({"kernel_size": 4}, 16 * 4 + 16 * 4 * 6 + NORMS + HEAD),
    "more blocks": (
        {"blocks": (1, 2)},
        9 * 4 + 9 * 4 * 6 + 9 * 6 * 6 + NORMS + 2 * 6 + HEAD,
    ),
    "strides": (
        {"pooling": "stride"},
        (9 * 4 + 8) + (4 * 4 * 4 + 8) + (9 * 4 * 6 + 12) + HEAD,
    ),
    "residual": (
        {"block": "residual"},
        (9 * 4 + 8)  # the first convolution
        + 2 * (9 * 4 * 4 + 8)
        + (9 * 4 * 6 + 12 + 9 * 6 * 6 + 12 + 4 * 6 + 12)
        + HEAD,
    ),
    "separable": (
        {"block": "separable"},
        (9 * 4 + 8) + (9 * 4 + 8 + 4 * 4 + 8) + (9 * 4 + 8 + 4 * 6 + 12) + HEAD,
    ),
    "inverted": (
        {"block": "inverted"},
        (9 * 4 + 8)
        + (4 * 16 + 32 + 9 * 16 + 32 + 16 * 4 + 8)
        + (4 * 16 + 32 + 9 * 16 + 32 + 16 * 6 + 12)
        + HEAD,
    ),
    "dense": (
        {"head": "dense"},
        9 * 4 + 9 * 4 * 6 + NORMS + (16 * 6 * 128 + 128) + (128 * 3 + 3),
    ),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_number_of_parameters_equals_the_count_by_hand(name):
    options, expected = PARAMETERS[name]
    assert n_params(make_net(**options)) == expected


@pytest.mark.parametrize("size", range(1, 8))
@pytest.mark.parametrize("is_depthwise", [False, True])
def test_filters_of_any_size_are_centred_and_keep_the_map_size(size, is_depthwise):
    layers = _LayerFactory(size, "relu", "none").convolution(
        1, 1, size, is_depthwise=is_depthwise
    )
    convolution = nn.Sequential(*layers)
    x = draw((1, 8, 9))
    assert convolution(x).shape == x.shape
    with torch.no_grad():  # a filter that reads the pixel itself
        layers[-1].weight.zero_()
        layers[-1].weight[0, 0, (size - 1) // 2, (size - 1) // 2] = 1.0
        layers[-1].bias.zero_()
        assert_allclose(convolution(x), x)


@pytest.mark.parametrize("block", ["residual", "inverted"])
@pytest.mark.parametrize("normalisation", IMAGE_NORMALISATIONS)
def test_residual_branches_start_at_zero_without_normalisation(block, normalisation):
    net = make_net(block=block, normalisation=normalisation, blocks=(2, 1))
    inside = [m for m in net.modules() if isinstance(m, Residual)]
    assert len(inside) == (3 if block == "residual" else 2)
    x = draw((4, 5, 5))
    assert torch.equal(inside[0](x), x) == (normalisation == "none")
    assert not torch.equal(with_active_branches(net) and inside[0](x), x)


@pytest.mark.parametrize("block", IMAGE_BLOCKS)
def test_the_first_stage_may_consist_of_the_stem_only(block):
    if block == "plain":
        with pytest.raises(InvalidParameterError, match="an int >= 1"):
            make_net(block=block, blocks=(0, 1))
        return
    net = make_net(block=block, blocks=(0, 1))
    assert n_params(net) < n_params(make_net(block=block, blocks=(1, 1)))
    assert net.body(draw()).shape == (5, 6, 4, 4)
    with pytest.raises(InvalidParameterError, match="an int >= 1"):
        make_net(block=block, blocks=(1, 0))


def test_shortcuts_are_projected_only_where_channels_change():
    net = make_net(block="residual", blocks=(1, 2), channels=(4, 6))
    inside = [m for m in net.modules() if isinstance(m, Residual)]
    assert [len(m.shortcut) > 0 for m in inside] == [False, True, False]
    same = make_net(block="residual", channels=(4, 4))
    assert not any(len(m.shortcut) for m in same.modules() if isinstance(m, Residual))


# ----------------------------------------------------------------------------- pooling


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_each_pooling_divides_the_map_size_by_the_pool_size(pooling, size):
    shape = (1, 17, 26)
    net = make_net(
        shape, blocks=(1, 1, 1), channels=(2, 3, 4), pooling=pooling, pool_size=size
    )
    maps = net.body(draw(shape))
    assert maps.shape == (5, 4, *map_size(shape, 3, size))
    assert map_size(shape, 3, size) == (17 // size // size, 26 // size // size)


def test_pooling_equals_that_of_torch():
    x = draw((2, 6, 6))
    for word, layer in [("max", nn.MaxPool2d(3)), ("average", nn.AvgPool2d(3))]:
        net = make_net((1, 6, 6), pooling=word, pool_size=3)
        (pool,) = [m for m in net.body.modules() if isinstance(m, type(layer))]
        assert torch.equal(pool(x), layer(x))


@pytest.mark.parametrize("block", IMAGE_BLOCKS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_only_max_pooling_precedes_the_normalisation(block, pooling):
    net = make_net(block=block, pooling=pooling)
    kinds = [type(m) for m in net.body.modules()]
    names = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}
    if pooling in names:
        index = kinds.index(names[pooling])
        is_early = issubclass(kinds[index + 1], nn.BatchNorm2d)
        assert is_early == (pooling == "max" and block in ("plain", "separable"))


def test_max_pooling_before_a_relu_equals_max_pooling_after_it():
    net = make_net(normalisation="none")
    block = net.body[0]
    kinds = [type(m) for m in block]
    assert kinds == [nn.Conv2d, nn.MaxPool2d, nn.ReLU]
    x = draw((1, 8, 8))
    convolution, pool, activation = block
    assert torch.equal(block(x), pool(activation(convolution(x))))


@pytest.mark.parametrize("options", [{}, {"head": "dense"}])
def test_gradients_of_all_maps_are_channels_last(options):
    """Gradients in another memory format slow down convolutions several times."""
    net = make_net((2, 16, 16), channels=(4, 6), **options)
    strides = []

    def watch(module, inputs, output):
        output.register_hook(lambda grad: strides.append(grad.stride()))

    for layer in net.body.modules():
        if not list(layer.children()):
            layer.register_forward_hook(watch)
    net(draw((2, 16, 16))).square().sum().backward()
    assert len(strides) == sum(not list(m.children()) for m in net.body.modules())
    assert all(stride[1] == 1 for stride in strides)


def test_outputs_are_finite_for_maps_of_one_pixel():
    net = make_net((1, 4, 4), blocks=(1, 1, 1), channels=(2, 3, 4))
    for is_training in (True, False):
        for n in (1, 2):
            outputs = net.train(is_training)(draw((1, 4, 4), n=n))
            assert torch.isfinite(outputs).all()


def test_one_value_per_channel_is_normalised_by_running_statistics():
    layer, usual = BatchNorm2d(3), nn.BatchNorm2d(3)
    x = draw((3, 2, 2))
    assert torch.equal(layer(x), usual(x))
    assert torch.equal(layer.running_var, usual.running_var)
    running_mean_before = layer.running_mean.clone()
    alone = draw((3, 1, 1), n=1)
    assert_allclose(layer(alone).detach(), usual.eval()(alone).detach())
    assert torch.equal(layer.running_mean, running_mean_before)


def test_group_normalisation_is_computed_per_image():
    (layer,) = [
        m
        for m in make_net(normalisation="group", blocks=(1,), channels=(4,)).modules()
        if isinstance(m, nn.GroupNorm)
    ]
    x = 3 * draw((4, 5, 5)) + 2
    normal = layer(x).detach()
    assert_allclose(normal.mean(dim=(1, 2, 3)), 0, atol=1e-5)
    assert_allclose(normal.std(dim=(1, 2, 3), correction=0), 1, rtol=1e-4)


# ------------------------------------------------------------------------------- heads


def make_head(kind, side=(9, 6), normalisation="none"):
    torch.manual_seed(0)
    return Head(2, side, 3, kind, "relu", normalisation, dropout=0.0)


def test_average_head_reads_the_mean_of_each_channel():
    head, x = make_head("average"), draw((2, 9, 6))
    weight, bias = head.output.weight[0], head.output.bias[0]
    assert_allclose(
        head(x)[0].detach(), (x.mean(dim=(2, 3)) @ weight + bias).detach(), atol=1e-6
    )


@pytest.mark.parametrize(("word", "axis"), [("batch", 0), ("group", 1)])
def test_average_head_normalises_the_channel_means(word, axis):
    head, x = make_head("average", normalisation=word), draw((2, 9, 6))
    means = x.mean(dim=(2, 3))
    spread = means.var(dim=axis, correction=0, keepdim=True) + 1e-5
    normal = (means - means.mean(dim=axis, keepdim=True)) / spread.sqrt()
    expected = normal @ head.output.weight[0] + head.output.bias[0]
    assert_allclose(head(x)[0].detach(), expected.detach(), atol=1e-5)


@pytest.mark.parametrize("side", [(9, 6), (3, 2), (4, 7)])
def test_dense_head_reads_maps_of_at_most_4_by_4_pixels(side):
    head, x = make_head("dense", side), draw((2, *side))
    hidden = head.layers[1]
    assert hidden.weight.shape == (1, 2 * min(side[0], 4) * min(side[1], 4), 128)
    if max(side) <= 4:  # the map itself
        h = torch.relu(x.flatten(1) @ hidden.weight[0] + hidden.bias[0])
        expected = h @ head.output.weight[0] + head.output.bias[0]
        assert_allclose(head(x)[0].detach(), expected.detach(), atol=1e-5)


@pytest.mark.parametrize("kind", HEADS)
def test_dropout_precedes_the_layers_of_the_head_and_can_be_switched_off(kind):
    net = make_net(head=kind, dropout=0.5, normalisation="none")
    dropouts = [m for m in net.modules() if isinstance(m, Dropout)]
    assert len(dropouts) == (2 if kind == "dense" else 1)
    x = draw()
    assert not torch.equal(net(x), net(x))
    assert torch.equal(net.eval()(x), net(x))
    for dropout in dropouts:
        dropout.set_strength(0.0)
    assert torch.equal(net.train()(x), net.eval()(x))


# --------------------------------------------------------------------- initial weights


@pytest.mark.parametrize("activation", IMAGE_ACTIVATIONS)
def test_activations_and_gradients_keep_their_scale_without_normalisation(activation):
    options = {"blocks": (6,), "channels": (32,), "normalisation": "none"}
    net = make_net((3, 12, 12), activation=activation, **options)
    x = draw((3, 12, 12), n=8).requires_grad_()
    deviation = net.body(x).std(dim=0).mean()
    assert 0.01 < deviation < 3
    net.body(x).square().sum().backward()
    first, *_, last = [p.grad for n, p in net.body.named_parameters() if "weight" in n]
    assert 1e-3 < first.norm() / last.norm() < 1e3


def test_initial_outputs_are_near_zero():
    for shape in SHAPES:
        for head in HEADS:
            outputs = make_net(shape, head=head, channels=(16, 32))(draw(shape, n=64))
            assert outputs.std() < 0.5 and outputs.mean().abs() < 0.3


def test_the_seed_determines_the_initial_weights():
    one, same, other = (make_net(seed=seed, head="dense") for seed in (0, 0, 1))
    for a, b in zip(one.parameters(), same.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.head.output.weight, other.head.output.weight)


def test_networks_are_pickled_and_loaded():
    net, x = make_net(block="inverted").train(), draw()
    net(x)
    again = pickle.loads(pickle.dumps(net))
    assert torch.equal(again.eval()(x), net.eval()(x))
    fresh = make_net(block="inverted", seed=3)
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh.eval()(x), net(x))


def test_weights_are_channels_last():
    net = make_net(blocks=(1, 1), channels=(4, 6))
    for parameter in net.parameters():
        if parameter.ndim == 4:
            assert parameter.is_contiguous(memory_format=torch.channels_last)


# ------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": "dense"}, "'block' parameter of ConvNet must be one of 'plain'"),
        ({"pooling": "mean"}, "'pooling' parameter of ConvNet must be one of 'max'"),
        ({"activation": "rleu"}, "did you mean 'relu'?"),
        ({"normalisation": "layer"}, "must be one of 'none', 'batch', 'group'"),
        ({"head": "flat"}, "must be one of 'average', 'dense'"),
        ({"blocks": (1,)}, "must be an int >= 1 for each of 2 stages, got (1,)"),
        ({"blocks": (1, 0)}, "must be an int >= 1 for each of 2 stages, got (1, 0)"),
        ({"blocks": (), "channels": ()}, "must be an int >= 1 for each of 0 stages"),
        (
            {"pool_size": 9},
            "must be few enough stages for maps of 8 x 8 to keep a pixel, got (1, 1)",
        ),
    ],
)
def test_wrong_parameters_raise_an_error(options, message):
    with pytest.raises(InvalidParameterError, match=re.escape(message)):
        make_net(**options)
