"""Parts of the study timed by pytest-benchmark, on one thread as a study runs them; bench_study.py makes the table."""

from itertools import cycle

import numpy as np
import pytest
import torch
from timing import BATCH_SIZE, RATE

from neuronsplit.core.matmul import use_onednn_matmul
from neuronsplit.core.mlp import MLP
from neuronsplit.core.optimizers import make_optimizer, train_step
from neuronsplit.core.split import SPLIT_RULES
from neuronsplit.data.datasets import load_dataset
from neuronsplit.growing.scores import ablation_loss, forward_blocks
from neuronsplit.growing.train import Run
from neuronsplit.growing.which import POLICIES, choose

N_SEEDS, N_POLICIES, PIECE = 10, 7, 5  # seeds; policies; seeds of one piece of seven policies, as a study trains them
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def as_in_a_study():
    with use_onednn_matmul():
        yield


@pytest.fixture(scope="module")
def data():
    return load_dataset("fashion-mnist")


@pytest.fixture(scope="module")
def own():
    """The data of all seeds, as a study has them."""
    return load_dataset("fashion-mnist", range(N_SEEDS))


def networks(width: int, n_policies: int, n_seeds: int = N_SEEDS) -> MLP:
    """Make the networks of so many policies: a replica per policy for the first seed, then for the next."""
    return MLP((784, width, 10), [seed for seed in range(n_seeds) for _ in range(n_policies)])


def started(width: int) -> Run:
    """Start the run of one policy with all seeds."""
    return Run.start(networks(width, 1), list(range(N_SEEDS)), "sgd", RATE, BATCH_SIZE)


@pytest.mark.parametrize("width", [10, 35, 60])
def test_step(benchmark, data, width):
    """A step of one piece."""
    mlp, g = networks(width, N_POLICIES, PIECE), torch.Generator().manual_seed(0)
    optimizer = make_optimizer("sgd", mlp, RATE)
    index = torch.randint(len(data.train.labels), (PIECE, BATCH_SIZE), generator=g)
    images, labels = data.train.images[index], data.train.labels[index].repeat_interleave(N_POLICIES, dim=0)
    benchmark(train_step, mlp, images, labels, optimizer)


@pytest.mark.parametrize("width", [10, 35, 60])
def test_products(benchmark, data, width):
    """The two products of the first layer in that step, forward and update, written over what is there."""
    images = data.train.images[: PIECE * BATCH_SIZE].view(PIECE, BATCH_SIZE, 784)
    w = MLP((784, width * N_POLICIES, 10), range(PIECE)).weights[0]
    out = torch.empty(PIECE, N_POLICIES * width, BATCH_SIZE)
    grad_out = torch.full((PIECE, N_POLICIES * width, BATCH_SIZE), 1e-6)

    def products():
        torch.bmm(w, images.mT, out=out)
        w.baddbmm_(grad_out, images, alpha=-RATE)

    benchmark(products)


def test_split(benchmark, data):
    """Split every network of one piece. This copies the layer, which buffers of the final width would avoid."""
    mlp = networks(59, N_POLICIES, PIECE)
    drawn = [SPLIT_RULES["scaled"].draw(np.random.default_rng(0), 10)] * mlp.n_replicas
    benchmark.pedantic(lambda own: own.split(0, drawn), setup=lambda: ((mlp[:],), {}), rounds=30, warmup_rounds=1)


@pytest.mark.parametrize("layout", ["floats", "bytes", "blocks"])
def test_gather(benchmark, data, layout):
    """Gather the images of a mini-batch of one piece: as floats, as bytes, or for 16 mini-batches at once."""
    count = PIECE * BATCH_SIZE * (16 if layout == "blocks" else 1)
    orders = torch.randint(len(data.train.labels), (100, count), generator=torch.Generator().manual_seed(0))
    indices = cycle(orders)  # anywhere among the images, as in an epoch, so that the cache does not have them
    if layout == "bytes":
        images = (data.train.images * 255).byte()
        benchmark(lambda: images.index_select(0, next(indices)).float().div_(255))
    else:
        benchmark(lambda: data.train.images.index_select(0, next(indices)))


@pytest.mark.parametrize("width", [10, 60])
def test_evaluation(benchmark, own, width):
    """The validation images of one policy's seeds."""
    benchmark(started(width).evaluate, own.validation)


@pytest.mark.parametrize("width", [10, 60])
def test_ablation(benchmark, own, width):
    """The ablation loss of every neuron, with its own forward pass."""
    mlp = networks(width, 1)
    benchmark(lambda: ablation_loss(mlp, forward_blocks(mlp, own.validation)))


@pytest.mark.parametrize("width", [10, 60])
def test_epoch(benchmark, own, width):
    """Training and evaluation of one policy's seeds, without a choice."""
    run = started(width)

    def epoch():
        run.epoch(own.train)
        run.evaluate(own.validation)
        run.evaluate(own.test)

    benchmark.pedantic(epoch, rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("width", [10, 60])
@pytest.mark.parametrize("policy", POLICIES)
def test_choice(benchmark, own, policy, width):
    """A choice by the activations of the validation pass."""
    mlp = networks(width, 1)
    blocks = forward_blocks(mlp, own.validation)
    rngs = [np.random.default_rng(seed) for seed in range(N_SEEDS)]
    benchmark.pedantic(choose, ([policy], mlp, blocks, rngs), rounds=5, warmup_rounds=1)
