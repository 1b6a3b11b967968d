import math

import plain
import pytest
import torch

from neuronsplit.model import MLP


def test_each_replica_is_the_network_of_its_seed():
    three, alone = MLP((6, 4, 3), replicas=3, seed=7), MLP((6, 4, 3), seed=9)
    assert all(torch.equal(p[2], q[0]) for p, q in zip(three.parameters(), alone.parameters()))
    assert not torch.equal(three.weights[0][0], three.weights[0][1])


@pytest.mark.parametrize("sizes", [(6, 4, 3), (6, 1, 3), (6, 5, 4, 3)])
def test_replicas_compute_what_torch_nn_does(sizes):
    mlp = MLP(sizes, replicas=3)
    shared, own = torch.rand(8, 6), torch.rand(3, 8, 6)
    for r in range(3):
        net = plain.network(mlp, r)
        torch.testing.assert_close(mlp(shared)[r], net(shared))
        torch.testing.assert_close(mlp(own)[r], net(own[r]))
        torch.testing.assert_close(mlp.hidden(shared)[-1][r], net[:-1](shared))


def test_replicas_share_images_in_equal_runs():
    mlp, images = MLP((6, 4, 3), replicas=6), torch.rand(2, 8, 6)
    found = mlp(images)
    for r in range(6):
        torch.testing.assert_close(found[r], plain.network(mlp, r)(images[r // 3]))
    with pytest.raises(ValueError, match="^4 sets of images: allowed are divisors of the 6 replicas$"):
        mlp(torch.rand(4, 8, 6))


def test_some_replicas_are_networks_of_their_own():
    mlp, images = MLP((6, 4, 3), replicas=4), torch.rand(8, 6)
    torch.testing.assert_close(mlp[1::2](images), mlp(images)[1::2])
    torch.testing.assert_close(mlp[[2, 2, 0]](images), mlp(images)[[2, 2, 0]])
    with pytest.raises(TypeError, match="^replicas 0: allowed are slices and lists$"):
        mlp[0]


def test_weights_are_xavier_uniform():
    mlp = MLP((300, 200, 100), seed=1)
    for w, b in zip(mlp.weights, mlp.biases):
        bound = math.sqrt(6 / sum(w.shape[1:]))
        assert w.abs().max() <= bound
        assert w.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)  # a uniform's sd
        assert w.mean() == pytest.approx(0, abs=0.02 * bound)
        assert (b == 0).all()


def test_a_wider_network_begins_with_the_narrower_one():
    narrow, wide = MLP((20, 10, 5), seed=3), MLP((20, 60, 5), seed=3)
    for layer, fans in ((0, (20 + 10, 20 + 60)), (1, (10 + 5, 60 + 5))):
        n_out, n_in = narrow.weights[layer].shape[1:]
        scale = math.sqrt(fans[0] / fans[1])
        torch.testing.assert_close(wide.weights[layer][:, :n_out, :n_in], narrow.weights[layer] * scale)


def test_parameters_are_those_of_one_network():
    assert MLP((784, 10, 10), replicas=4).n_parameters() == 784 * 10 + 10 + 10 * 10 + 10


@pytest.mark.parametrize("sizes", [(784, 10), (784, 0, 10), (784, 10.0, 10)])
def test_bad_sizes_are_named(sizes):
    with pytest.raises(ValueError, match=r"^sizes \(784, .*\): allowed are three or more whole numbers from 1$"):
        MLP(sizes)


def test_a_layer_that_is_not_there_is_named():
    with pytest.raises(IndexError, match="^layer 1: allowed are -1 to 0$"):
        MLP((3, 2, 1)).split(0, [], layer=1)


def test_a_missing_draw_is_named():
    with pytest.raises(ValueError, match="^1 coefficients: allowed is one for each of 3 replicas$"):
        MLP((3, 2, 1), 3).split(0, [(1.0, 1.0, 0.5, 0.5)])


def test_appended_neurons_come_last_and_the_others_stay():
    mlp, x = MLP((6, 4, 3), 2), torch.rand(5, 6)
    before = mlp(x)
    fan_in, bias = torch.rand(2, 2, 6), torch.rand(2, 2, 1)
    mlp.append(fan_in, bias, torch.zeros(2, 3, 2))
    torch.testing.assert_close(mlp(x), before)
    expected = (x @ fan_in[1].mT + bias[1].mT).relu()
    torch.testing.assert_close(mlp.hidden(x)[0][1, :, 4:], expected)


def test_a_bad_seed_is_named():
    with pytest.raises(ValueError, match="^seed -1: allowed are whole numbers from 0$"):
        MLP((3, 2, 1), seed=-1)


def test_bad_replicas_are_named():
    with pytest.raises(ValueError, match="^replicas 0: allowed are whole numbers from 1$"):
        MLP((3, 2, 1), replicas=0)
