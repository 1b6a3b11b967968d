import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_scores import splitting_matrix

from neuronsplit.core.mlp import MLP
from neuronsplit.core.optimizers import make_optimizer, train_step
from neuronsplit.data.datasets import Subset, load_dataset
from neuronsplit.growing.curvature import _principal_components, smallest_eigenvalue, steepest_split
from neuronsplit.growing.scores import forward_blocks
from neuronsplit.growing.train import Run


@pytest.mark.long
@given(seed=st.integers(0, 1000), n=st.integers(20, 300), n_in=st.integers(1, 40))
def test_the_steepest_direction_is_the_eigenvector_of_the_smallest_eigenvalue(seed, n, n_in):
    g = torch.Generator().manual_seed(seed)
    mlp = MLP((n_in, 4, 3), [seed, seed + 1]).to(torch.float64)
    images, labels = torch.randn(n, n_in, generator=g, dtype=torch.float64), torch.randint(3, (n,), generator=g)
    neurons = torch.tensor([[2], [0]])
    values, directions = steepest_split(mlp, Subset(images, labels), neurons)
    for r in range(2):
        matrix = splitting_matrix(reference.network(mlp, r), int(neurons[r]), images, labels)
        u = directions[r, 0]
        assert u.norm().item() == pytest.approx(1)
        smallest = torch.linalg.eigvalsh(matrix)[0].item()
        bound = 1e-6 * matrix.norm().item()  # Lanczos' method takes as many steps as there are dimensions
        assert values[r, 0].item() == pytest.approx(smallest, abs=bound)
        assert (u @ matrix @ u).item() == pytest.approx(smallest, abs=bound)


@pytest.mark.long
def test_the_smallest_eigenvalue_is_found_at_the_size_of_fashion_mnist():
    """By Lanczos' method, in float32, for a network half trained on images of 784 pixels."""
    g = torch.Generator().manual_seed(0)
    mlp = MLP((784, 5, 10))
    images = torch.rand(1500, 784, generator=g) ** 4 - 0.5
    labels = (images[:, :10] > images[:, :10].amax(1, keepdim=True) - 1e-9).int().argmax(1)
    optimizer = make_optimizer("sgd", mlp, 0.05)
    for index in torch.arange(1500).split(50):
        train_step(mlp, images[index][None], labels[index][None], optimizer)
    values, _ = steepest_split(mlp, Subset(images, labels), torch.arange(5)[None])
    net = reference.network(mlp, 0)
    for j in range(5):
        spectrum = torch.linalg.eigvalsh(splitting_matrix(net, j, images, labels).double())
        assert values[0, j].item() == pytest.approx(spectrum[0].item(), abs=0.01 * spectrum.abs().max().item())


@pytest.mark.parametrize("by_seed", [False, True])
def test_the_eigenvalue_within_few_directions_chooses_nearly_as_well_as_the_full_matrix(by_seed):
    """On the 64 pixels of the digits, after some training; the directions are those of the singular vectors."""
    seeds = list(range(5))
    digits = load_dataset("digits", seeds if by_seed else None)
    run = Run.start(MLP((64, 20, 10), seeds), seeds, "sgd", 0.05, 32)
    for _ in range(5):
        run.epoch(digits.train)
        exact, _ = steepest_split(run.mlp, digits.validation, torch.arange(20).expand(5, 20))
        approximate = smallest_eigenvalue(run.mlp, forward_blocks(run.mlp, digits.validation))
        chosen = exact.gather(1, approximate.argmin(1, keepdim=True))
        assert (chosen / exact.amin(1, keepdim=True)).mean() > 0.9  # both are below 0
    images = digits.validation.pool[0]
    _, _, directions = torch.linalg.svd(images)
    components = _principal_components(images, 32)
    assert (directions[:5] @ components[:, :5]).diagonal().abs().min() > 0.99


def test_networks_with_two_hidden_layers_are_refused():
    digits, mlp = load_dataset("digits"), MLP((64, 4, 3, 10))
    message = r"^sizes \(64, 4, 3, 10\): allowed is one hidden layer$"
    with pytest.raises(ValueError, match=message):
        steepest_split(mlp, digits.validation, torch.tensor([[0]]))
    with pytest.raises(ValueError, match=message):
        smallest_eigenvalue(mlp, forward_blocks(mlp, digits.validation))
