"""Measure what a split costs compared with a training step, and print a table of medians."""

import copy
import platform

import numpy as np
import torch
from timing import seconds
from torch.nn.functional import cross_entropy

from neuronsplit.data.download import import_torchvision_datasets
from neuronsplit.surgery.split_neuron import split_neuron

import_torchvision_datasets()
import torchvision.models  # noqa: E402

CASES = [
    ("resnet18", {}, "layer1.0.conv1", "scaled"),
    ("resnet18", {}, "layer4.1.conv2", "scaled"),
    ("vit_b_16", {}, "encoder.layers.encoder_layer_5.mlp.0", "outgoing"),
    ("mobilenet_v2", {}, "features.3.conv.0.0", "outgoing"),
]


def measure(name, options, layer, rule, rounds=3, batch_size=8):
    """Return a row of the table: the seconds of a step and of a split, and the megabytes of the tensors it makes."""
    net = getattr(torchvision.models, name)(weights=None, **options)
    images, labels = torch.randn(batch_size, 3, 224, 224), torch.randint(1000, (batch_size,))
    optimizer = torch.optim.Adam(net.parameters())

    def step():
        optimizer.zero_grad()
        cross_entropy(net(images), labels).backward()
        optimizer.step()

    step_time = seconds(step, rounds)
    copies = [copy.deepcopy((net, optimizer)) for _ in range(rounds + 1)]

    def split():
        own_net, own_optimizer = copies.pop()
        options = {"example_inputs": images[:1], "optimizer": own_optimizer, "rng": np.random.default_rng(0)}
        return split_neuron(own_net, layer, 7, rule=rule, **options)

    split_time = seconds(split, rounds)
    shapes = split_neuron(net, layer, 7, example_inputs=images[:1], rule=rule).shapes
    megabytes = sum(4 * np.prod(after) for _, after in shapes.values()) / 1e6
    return name, layer, step_time, split_time, split_time / step_time, megabytes


if __name__ == "__main__":
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}; batch 8, medians of 3")
    print(f"{'network':12} {'layer':38} {'step':>9} {'split':>9} {'ratio':>6} {'new tensors':>12}")
    for case in CASES:
        name, layer, step_time, split_time, ratio, megabytes = measure(*case)
        times = f"{step_time * 1e3:6.0f} ms {split_time * 1e3:6.0f} ms {ratio:6.2f}"
        print(f"{name:12} {layer:38} {times} {megabytes:9.2f} MB")
