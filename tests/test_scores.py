import numpy as np
import pytest
import reference
import reference_scores
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from neuronsplit.core.mlp import MLP
from neuronsplit.data.datasets import Subset, load_dataset
from neuronsplit.growing import learned
from neuronsplit.growing.scores import (
    FEATURES,
    GRADIENT_IMAGES,
    ablation_loss,
    epochs_since_split,
    fire_rate,
    forward_blocks,
    importance,
)  # fmt: skip
from neuronsplit.growing.which import POLICIES, TIE_TOLERANCE

TOLERANCES = {"ablation_loss": (1e-10, 1e-13), "fire_rate": (1e-6, 0)}


@given(
    replicas=st.integers(1, 3), width=st.integers(1, 12), n=st.integers(1, 600), seed=st.integers(0, 1000),
    classes=st.integers(2, 5),
)  # fmt: skip
def test_scores_equal_the_reference_one_neuron_at_a_time(replicas, width, n, seed, classes):
    g = torch.Generator().manual_seed(seed)
    mlp = MLP((5, width, classes), range(seed, seed + replicas)).to(torch.float64)
    for p in mlp.parameters():
        p.add_(torch.randn(p.shape, generator=g))
    images = torch.randn(n, 5, generator=g, dtype=torch.float64)
    labels = torch.randint(classes, (n,), generator=g)
    blocks = forward_blocks(mlp, Subset(images, labels))
    for score in FEATURES:
        if score is not epochs_since_split:
            name, found = score.__name__, score(mlp, blocks)
            assert found.shape == (replicas, width)
            rtol, atol = TOLERANCES.get(name, (1e-5, 1e-6))
            for r in range(replicas):
                expected = reference_scores.SCORES[name](reference.network(mlp, r), images, labels)
                np.testing.assert_allclose(found[r], expected, rtol=rtol, atol=atol, err_msg=name)


def test_the_score_of_every_policy_has_a_reference_or_is_uniform_or_was_fitted():
    names = {policy.score.__name__ for name, policy in POLICIES.items() if name not in learned.weights()}
    assert names - reference_scores.SCORES.keys() == {"uniform"}
    assert {score.__name__ for score in FEATURES} - reference_scores.SCORES.keys() == {"epochs_since_split"}


def test_blocks_can_be_read_twice():
    digits, mlp = load_dataset("digits"), MLP((64, 6, 10), [0, 1])
    mlp.epochs_since_split += torch.arange(6)
    blocks = forward_blocks(mlp, digits.train)
    assert len(blocks) == 2 and sum(len(block.labels) for block in blocks) == 1200
    for score in FEATURES:
        first, second = score(mlp, blocks), score(mlp, blocks)
        assert torch.equal(first, second) and first.any(), score.__name__


def test_the_ablation_loss_of_a_neuron_that_decides_everything_neither_overflows_nor_is_lost():
    """Logits are several hundred, in float32; the loss of one image counts as at most 88."""
    mlp = MLP((2, 3, 2))
    mlp.weights[0].copy_(torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]]))
    mlp.weights[1].copy_(torch.tensor([[[300.0, -40.0, 1.0], [-300.0, 40.0, 2.0]]]))
    images, labels = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)), torch.arange(200) % 2
    found = ablation_loss(mlp, forward_blocks(mlp, Subset(images, labels)))[0]
    net = reference.network(mlp, 0)
    for j in range(3):
        rest = net[1](net[0](images)) * 1.5
        rest[:, j] = 0
        losses = torch.nn.functional.cross_entropy(net[2](rest), labels, reduction="none")
        assert found[j].item() == pytest.approx(losses.clamp(max=128 * np.log(2)).mean().item(), rel=1e-4)


class LargestTensor(TorchDispatchMode):
    """Notes the bytes of the largest tensor that is made while it is on."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return made


@pytest.mark.long
@pytest.mark.parametrize("replicas, width", [(10, 1000), (70, 60), (1, 20_000)])
def test_the_ablation_loss_makes_no_tensor_above_80_megabytes(replicas, width):
    mlp, n = MLP((2, width, 10), range(replicas)), 10_000
    subset = Subset(torch.zeros(n, 2), torch.zeros(n).long())
    with LargestTensor() as largest:
        ablation_loss(mlp, forward_blocks(mlp, subset))
    assert 2**20 < largest.bytes < 80e6


def test_without_the_only_neuron_the_output_bias_remains():
    mlp = MLP((4, 1, 3))
    mlp.biases[1].copy_(torch.tensor([[[0.0], [1.0], [2.0]]]))
    loss = ablation_loss(mlp, forward_blocks(mlp, Subset(torch.rand(50, 4), torch.full((50,), 2))))
    assert loss.item() == pytest.approx(np.log(1 + np.exp(-1) + np.exp(-2)), rel=1e-6)


def test_neurons_that_never_fire_have_the_same_ablation_loss_and_fire_rate_0():
    mlp = MLP((64, 6, 10), [0, 1])
    mlp.biases[0][:, [1, 3, 4]] = -100.0
    blocks = forward_blocks(mlp, load_dataset("digits").validation)
    assert (fire_rate(mlp, blocks)[:, [1, 3, 4]] == 0).all()
    losses = ablation_loss(mlp, blocks)
    torch.testing.assert_close(losses[:, 1], losses[:, 4], rtol=0, atol=TIE_TOLERANCE)


def test_importance_looks_at_the_first_images_only():
    mlp, g, n = MLP((4, 5, 2)), torch.Generator().manual_seed(0), GRADIENT_IMAGES
    images, labels = torch.randn(n + 900, 4, generator=g), torch.randint(2, (n + 900,), generator=g)
    of_first, of_all = (importance(mlp, forward_blocks(mlp, Subset(images[:m], labels[:m]))) for m in (n, n + 900))
    torch.testing.assert_close(of_first, of_all)
