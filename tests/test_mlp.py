import math

import numpy as np
import pytest
import reference
import torch
from torch.nn.functional import cross_entropy

from neuronsplit.core.matmul import merge_replicas
from neuronsplit.core.mlp import MLP
from neuronsplit.data.datasets import load_dataset


def same(mlp, other):
    return all(torch.equal(p, q) for p, q in zip(mlp.parameters(), other.parameters()))


@pytest.mark.parametrize("seeds", [[7, 8, 9], [0, 7], [5, 0, 5], (3,), range(2, 6)])
def test_each_replica_is_the_network_of_its_seed(seeds):
    mlp = MLP((6, 4, 3), seeds)
    assert mlp.n_replicas == len(seeds)
    assert all(same(mlp[[r]], MLP((6, 4, 3), [seed])) for r, seed in enumerate(seeds))
    assert same(mlp, MLP((6, 4, 3), seeds))


def test_other_seeds_give_other_weights():
    mlp = MLP((6, 4, 3), [0, 1])
    assert not torch.equal(mlp.weights[0][0], mlp.weights[0][1])
    assert same(MLP((6, 4, 3)), MLP((6, 4, 3), [0]))


def test_networks_for_a_dataset_have_its_inputs_and_classes_and_the_given_seeds():
    digits = load_dataset("digits")
    mlp = MLP.for_dataset(digits, 5, seeds=[0, 7])
    assert mlp.sizes == (64, 5, 10)
    assert same(mlp[[1]], MLP.for_dataset(digits, 5, seeds=[7])) and same(mlp[[0]], MLP((64, 5, 10), [0]))


@pytest.mark.parametrize("sizes", [(6, 4, 3), (6, 1, 3), (6, 5, 4, 3)])
def test_replicas_compute_what_torch_nn_does(sizes):
    mlp = MLP(sizes, range(3))
    shared, own = torch.rand(8, 6), torch.rand(3, 8, 6)
    for r in range(3):
        net = reference.network(mlp, r)
        torch.testing.assert_close(mlp(shared)[r], net(shared))
        torch.testing.assert_close(mlp(own)[r], net(own[r]))
        torch.testing.assert_close(mlp.hidden(shared)[-1][r], net[:-1](shared))


def test_each_set_of_images_serves_as_many_replicas_in_turn():
    mlp, images = MLP((6, 4, 3), range(6)), torch.rand(2, 8, 6)
    logits = mlp(images)
    assert logits.shape == (6, 8, 3)
    for r in range(6):
        torch.testing.assert_close(logits[r], reference.network(mlp, r)(images[r // 3]))
    with pytest.raises(ValueError, match="^4 sets of images: allowed are divisors of the 6 replicas$"):
        mlp(torch.rand(4, 8, 6))


def test_merged_replicas_are_a_view():
    w = torch.rand(6, 4, 5)
    merged = merge_replicas(w, torch.rand(2, 8, 5))
    assert merged.shape == (2, 12, 5) and merged.data_ptr() == w.data_ptr()
    assert torch.equal(merged[1, 4:8], w[4])


@pytest.mark.parametrize("sizes", [(6, 4, 3), (6, 5, 4, 3)])
@pytest.mark.parametrize("images_shape", [(9, 6), (2, 9, 6), (4, 9, 6)], ids=["shared", "by seed", "by replica"])
@pytest.mark.parametrize("labels_shape", [(9,), (4, 9)], ids=["shared labels", "labels by replica"])
def test_gradients_equal_autograd(sizes, images_shape, labels_shape):
    g = torch.Generator().manual_seed(0)
    mlp = MLP(sizes, range(4)).to(torch.float64)
    images = torch.randn(images_shape, generator=g, dtype=torch.float64)
    labels = torch.randint(3, labels_shape, generator=g)
    hidden = mlp.hidden(images)
    found = list(mlp.gradients(images, hidden, mlp.logits(hidden[-1]), labels))
    assert [k for k, _, _ in found] == list(reversed(range(len(sizes) - 1)))
    for k, grad_out, inputs in found:
        assert grad_out.shape == (4, 9, sizes[k + 1]) and inputs.shape[-2:] == (9, sizes[k])
        for r in range(4):
            net = reference.network(mlp, r)
            own_images = images if images.dim() == 2 else images[r // (4 // len(images))]
            loss = cross_entropy(net(own_images), labels if labels.dim() == 1 else labels[r])
            by_weight, by_bias = torch.autograd.grad(loss, [net[2 * k].weight, net[2 * k].bias])
            own_inputs = inputs if inputs.dim() == 2 else inputs[r // (4 // len(inputs))]
            torch.testing.assert_close(grad_out[r].mT @ own_inputs, by_weight)
            torch.testing.assert_close(grad_out[r].sum(0), by_bias)


def test_some_replicas_are_networks_of_their_own():
    mlp, images = MLP((6, 4, 3), range(4)), torch.rand(8, 6)
    torch.testing.assert_close(mlp[1::2](images), mlp(images)[1::2])
    torch.testing.assert_close(mlp[[2, 2, 0]](images), mlp(images)[[2, 2, 0]])
    for copied in (mlp[:], mlp[[0, 1, 2, 3]]):
        copied.weights[0].zero_()
        copied.epochs_since_split += 1
    assert mlp.weights[0].any() and not mlp.epochs_since_split.any()
    with pytest.raises(TypeError, match="^replicas 0: allowed are slices and lists$"):
        mlp[0]


def test_weights_are_xavier_uniform():
    mlp = MLP((300, 200, 100), [1])
    for w, b in zip(mlp.weights, mlp.biases):
        bound = math.sqrt(6 / sum(w.shape[1:]))
        assert w.abs().max() <= bound
        assert w.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)  # the sd of a uniform distribution
        assert w.mean() == pytest.approx(0, abs=0.02 * bound)
        assert (b == 0).all()


def test_a_wider_network_starts_with_the_weights_of_the_narrower_one():
    narrow, wide = MLP((20, 10, 5), [3]), MLP((20, 60, 5), [3])
    for layer, fans in ((0, (20 + 10, 20 + 60)), (1, (10 + 5, 60 + 5))):
        n_out, n_in = narrow.weights[layer].shape[1:]
        scale = math.sqrt(fans[0] / fans[1])
        torch.testing.assert_close(wide.weights[layer][:, :n_out, :n_in], narrow.weights[layer] * scale)


def test_parameters_are_counted_for_one_network():
    assert MLP((784, 10, 10), range(4)).n_parameters() == 784 * 10 + 10 + 10 * 10 + 10


@pytest.mark.parametrize("sizes", [(784, 10), (784, 0, 10), (784, 10.0, 10)])
def test_bad_sizes_are_named(sizes):
    with pytest.raises(ValueError, match=r"^sizes \(784, .*\): allowed are three or more whole numbers from 1$"):
        MLP(sizes)


@pytest.mark.parametrize("seeds", [3, [], [-1], [0, 1.5], ["0"], None])
def test_bad_seeds_are_named(seeds):
    with pytest.raises(ValueError, match="^seeds .*: allowed is a list of one or more whole numbers from 0$") as error:
        MLP((3, 2, 1), seeds)
    assert f"seeds {seeds!r}:" in str(error.value)


def test_a_layer_that_does_not_exist_is_named():
    with pytest.raises(IndexError, match="^layer 1: allowed are -1 to 0$"):
        MLP((3, 2, 1)).split(0, [], layer=1)


def test_missing_coefficients_are_named():
    with pytest.raises(ValueError, match="^1 coefficients: allowed is one for each of 3 replicas$"):
        MLP((3, 2, 1), range(3)).split(0, [(1.0, 1.0, 0.5, 0.5)])


def test_appended_neurons_come_last_and_the_others_stay():
    mlp, x = MLP((6, 4, 3), range(2)), torch.rand(5, 6)
    before = mlp(x)
    w_in, bias = torch.rand(2, 2, 6), torch.rand(2, 2, 1)
    mlp.append(w_in, bias, torch.zeros(2, 3, 2))
    torch.testing.assert_close(mlp(x), before)
    expected = (x @ w_in[1].mT + bias[1].mT).relu()
    torch.testing.assert_close(mlp.hidden(x)[0][1, :, 4:], expected)


def test_epochs_since_a_split_restart_at_0_for_both_twins_and_for_new_neurons():
    mlp = MLP((64, 3, 10), range(2))
    mlp.epochs_since_split += 4
    mlp.split(torch.tensor([1, 2]), [(0.5, 0.5, 1.0, 1.0)] * 2)
    assert mlp.epochs_since_split.tolist() == [[4, 0, 4, 0], [4, 4, 0, 0]]
    mlp.append(torch.zeros(2, 1, 64), torch.zeros(2, 1, 1), torch.zeros(2, 10, 1))
    assert mlp.epochs_since_split.tolist() == [[4, 0, 4, 0, 0], [4, 4, 0, 0, 0]]


def test_seeds_may_be_any_list_of_whole_numbers():
    first, second = MLP((4, 3, 2), [np.int64(0), np.int64(7)]), MLP((4, 3, 2), range(0, 8, 7))
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters()))
