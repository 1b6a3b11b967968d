"""Parts of the study timed by pytest-benchmark, on one thread as a study runs them; speed.py puts them side by side."""

from itertools import cycle

import numpy as np
import pytest
import torch

from neuronsplit import policies, scores, training
from neuronsplit.data import load_dataset
from neuronsplit.model import MLP
from neuronsplit.optimizers import start
from neuronsplit.products import fast_products
from neuronsplit.seeds import stream
from neuronsplit.split import RULES

REPEATS, SEVEN, PIECE = 10, 7, 5  # repeats; policies; repeats of one piece of seven policies, as a study trains them
RATE, BATCH = 1e-3, 32
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def as_in_a_study():
    with fast_products():
        yield


@pytest.fixture(scope="module")
def data():
    return load_dataset("fashion-mnist")


def networks(width: int, n_policies: int, repeats: int = REPEATS) -> MLP:
    """Those of so many policies: a replica for every policy of the first seed, then of the next."""
    return MLP((784, width, 10), repeats)[[seed for seed in range(repeats) for _ in range(n_policies)]]


@pytest.mark.parametrize("width", [10, 35, 60])
def test_step(benchmark, data, width):
    """Of one piece."""
    mlp, g = networks(width, SEVEN, PIECE), torch.Generator().manual_seed(0)
    optimizer = start("sgd", mlp, RATE)
    batch = torch.randint(len(data.train.labels), (PIECE, BATCH), generator=g)
    images, labels = data.train.images[batch], data.train.labels[batch].repeat_interleave(SEVEN, dim=0)
    benchmark(training.train_step, mlp, images, labels, optimizer)


@pytest.mark.parametrize("width", [10, 35, 60])
def test_products(benchmark, data, width):
    """The two products of the first layer in that step, written over what is there: forward, and the update."""
    images = data.train.images[: PIECE * BATCH].view(PIECE, BATCH, 784)
    w = MLP((784, width * SEVEN, 10), PIECE).weights[0]
    out, d = torch.empty(PIECE, SEVEN * width, BATCH), torch.full((PIECE, SEVEN * width, BATCH), 1e-6)

    def products():
        torch.bmm(w, images.mT, out=out)
        w.baddbmm_(d, images, alpha=-RATE)

    benchmark(products)


def test_split(benchmark, data):
    """Of every network of one piece: the whole layer is copied, which buffers of the final width would spare."""
    mlp = networks(59, SEVEN, PIECE)
    drawn = [RULES["scaled"](np.random.default_rng(0), 10)] * len(mlp.weights[0])
    benchmark.pedantic(lambda own: own.split(0, drawn), setup=lambda: ((mlp[:],), {}), rounds=30, warmup_rounds=1)


@pytest.mark.parametrize("way", ["floats", "bytes", "blocks"])
def test_gather(benchmark, data, way):
    """The images of a mini-batch of one piece; kept as bytes, or (`blocks`) those of 16 mini-batches at once."""
    count = PIECE * BATCH * (16 if way == "blocks" else 1)
    orders = torch.randint(len(data.train.labels), (100, count), generator=torch.Generator().manual_seed(0))
    places = cycle(orders)  # anywhere among the images, as in an epoch, so that the cache does not have them
    if way == "bytes":
        images = (data.train.images * 255).byte()
        benchmark(lambda: images.index_select(0, next(places)).float().div_(255))
    else:
        benchmark(lambda: data.train.images.index_select(0, next(places)))


@pytest.mark.parametrize("width", [10, 60])
def test_evaluation(benchmark, data, width):
    mlp = networks(width, 1)
    benchmark(lambda: training.evaluate(scores.look(mlp, data.validation)))


@pytest.mark.parametrize("width", [10, 60])
def test_removal(benchmark, data, width):
    """With its own forward pass."""
    mlp = networks(width, 1)
    benchmark(lambda: scores.loss_after_removal(mlp, list(scores.look(mlp, data.validation))))


@pytest.mark.parametrize("width", [10, 60])
def test_epoch(benchmark, data, width):
    """Training and evaluation of one policy's repeats, without a choice."""
    mlp = networks(width, 1)
    optimizer, order = start("sgd", mlp, RATE), [stream(seed, "order") for seed in range(REPEATS)]

    def epoch():
        training.train_epoch(mlp, data.train, order, optimizer, BATCH)
        for split in (data.validation, data.test):
            training.evaluate(scores.look(mlp, split))

    benchmark.pedantic(epoch, rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("width", [10, 60])
@pytest.mark.parametrize("policy", policies.POLICIES)
def test_choice(benchmark, data, policy, width):
    """From the activations that the validation pass has left."""
    mlp = networks(width, 1)
    seen = list(scores.look(mlp, data.validation))
    rngs = [np.random.default_rng(seed) for seed in range(REPEATS)]
    benchmark.pedantic(policies.choose, ([policy], mlp, seen, rngs), rounds=5, warmup_rounds=1)
