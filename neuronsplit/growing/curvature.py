"""The splitting matrix of a neuron says how the loss curves when its twins move apart."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import embedding

from neuronsplit.core.matmul import merge_replicas
from neuronsplit.core.mlp import MLP, logit_gradient
from neuronsplit.data.datasets import Subset

PCA_IMAGES = 1000  # images are enough to find the principal directions of all


def steepest_split(mlp: MLP, sample: Subset, neurons: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest eigenvalue of the splitting matrix of each neuron, and its eigenvector.

    sample: the images on which it is taken. neurons: (R, K).
    Returns the eigenvalues (R, K) and the eigenvectors (R, K, n_in + 1), directions of the incoming weights and bias.

    The splitting matrix of a neuron (w, b) is S = E[∂L/∂a · σ''(z) x xᵀ]. Here a is the neuron's activation, and x is
    the image with a 1 appended. Twins at (w, b) ± εu with half of the outgoing weights each change the loss by
    ½ ε² uᵀS u. Source: Wu, Wang & Liu 2019, arXiv 1910.02366, theorem 2.3. As in the paper, σ'' of ReLU is replaced by
    that of softplus with β = 3. S is not formed, because Lanczos' method needs only its products with vectors.

    Raises ValueError for networks with more than one hidden layer.
    """
    _check_one_hidden_layer(mlp)
    if sample.by_seed:
        parts = zip(_slices(mlp, len(sample.rows)), sample.of_seeds())
        values, vectors = zip(*(steepest_split(mlp[own], part, neurons[own]) for own, part in parts))
        return torch.cat(values), torch.cat(vectors)
    images, labels = sample
    w, b = (p.take_along_dim(neurons[..., None], 1) for p in (mlp.weights[-2], mlp.biases[-2]))  # (R, K, ·)
    w_out = mlp.weights[-1].take_along_dim(neurons[:, None], 2)  # (R, C, K)
    logit_grad = mlp(images).softmax(2)  # (R, N, C)
    logit_grad[:, torch.arange(len(labels)), labels] -= 1
    x = torch.cat([images, images.new_ones(len(images), 1)], dim=1)  # (N, n_in + 1)
    z = x @ torch.cat([w, b], dim=2).flatten(0, 1).mT  # (N, R K)
    sigmoid = torch.sigmoid(3 * z)
    second_derivative = 3 * sigmoid * (1 - sigmoid)  # of softplus
    weight = (logit_grad @ w_out).transpose(0, 1).flatten(1) * second_derivative / len(images)  # (N, R K)
    # The start needs a component along every eigenvector, so it is no axis and no symmetry axis of the images.
    start = torch.linspace(1, 2, x.shape[1]).to(x)[:, None].expand(-1, weight.shape[1])
    values, vectors = _smallest_eigenpair(lambda q: x.mT @ (weight * (x @ q)), start)
    return values.unflatten(0, w.shape[:2]), vectors.mT.unflatten(0, w.shape[:2])


def _check_one_hidden_layer(mlp: MLP) -> None:
    if len(mlp.weights) > 2:
        raise ValueError(f"sizes {mlp.sizes}: allowed is one hidden layer")


def _slices(mlp: MLP, n_seeds: int) -> list[slice]:
    """Return the replicas of each seed, a slice per seed."""
    size = mlp.n_replicas // n_seeds
    return [slice(seed * size, (seed + 1) * size) for seed in range(n_seeds)]


def smallest_eigenvalue(mlp: MLP, blocks: list, n_directions: int = 12, n_inputs: int = 32) -> Tensor:
    """Approximate the smallest eigenvalue (R, H) of every neuron's splitting matrix, at a hundredth of the cost.

    blocks: what `scores.forward_blocks` returns.
    n_directions: the matrices are restricted to this many leading principal directions of the images, and the bias
        (Rayleigh-Ritz: Golub & Van Loan 2013, section 8.1). This alone would never give less than the true eigenvalue.
    n_inputs: the pre-activation z, which only σ'' needs, is computed from this many leading directions.

    Raises ValueError for networks with more than one hidden layer.
    """
    _check_one_hidden_layer(mlp)
    (w_in, w_out), bias, subset = mlp.weights, mlp.biases[0], blocks[0].subset
    if subset.by_seed:  # the images that all seeds draw theirs from
        images = subset.pool[0]
        components = _principal_components(images[:: max(1, len(images) // PCA_IMAGES)], n_inputs)
        projected = images @ components  # (M, D)
    else:
        n_blocks = -(-PCA_IMAGES // len(subset.images))
        components = _principal_components(torch.cat([b.images for b in blocks[:n_blocks]])[:PCA_IMAGES], n_inputs)
    w_proj = w_in @ components  # (R, H, D)
    # Entry (i, j) of a neuron's matrix is Σ_n weight_n x_ni x_nj over the images. So one product gives the matrices of
    # all neurons: weights (R H, n) times (n, pairs), the products of two projections of each image. The matrices are
    # symmetric, so one triangle is enough: the pairs with row ≤ column.
    size, total = min(n_directions, components.shape[1]) + 1, 0
    for block in blocks:
        # (S, n, D), where S is 1 if all seeds share the images
        x_proj = embedding(block.subset.rows, projected) if subset.by_seed else (block.images @ components)[None]
        sigmoid = torch.baddbmm(merge_replicas(bias, x_proj), merge_replicas(w_proj, x_proj), x_proj.mT)
        sigmoid.mul_(3).sigmoid_()  # (S, R / S · H, n)
        weight = torch.bmm(w_out.mT, logit_gradient(block.logits, block.labels).mT)  # (R, H, n): ∂L/∂a
        weight = merge_replicas(weight, x_proj)
        weight.mul_(sigmoid.addcmul_(sigmoid, sigmoid, value=-1))  # times s − s², a third of softplus''
        x_proj = torch.cat([torch.ones_like(x_proj[..., :1]), x_proj[..., : size - 1]], dim=2)
        pairs = torch.cat([x_proj[..., i, None] * x_proj[..., i:] for i in range(size)], dim=2)
        total += torch.bmm(weight, pairs) * pairs.shape[1]  # (S, R / S · H, pairs)
    matrices, n_images = total.new_zeros(bias.numel(), size, size), sum(block.logits.shape[1] for block in blocks)
    row, column = torch.triu_indices(size, size, device=total.device)
    matrices[:, column, row] = total.flatten(0, 1) * (3 / n_images)  # eigvalsh reads the lower half
    values = torch.linalg.eigvalsh(matrices.double().nan_to_num(0, 0, 0))  # a network that diverged has NaN
    return values[:, 0].unflatten(0, bias.shape[:2])


def _principal_components(images: Tensor, n: int, n_iter: int = 3) -> Tensor:
    """Return the n leading principal directions (n_in, n) of images about 0, in order, by subspace iteration."""
    components = images[:: max(1, len(images) // n)][:n].mT
    for _ in range(n_iter):
        components, _ = torch.linalg.qr(images.mT @ (images @ components))
    _, rotation = torch.linalg.eigh((images @ components).mT @ (images @ components))
    return components @ rotation.flip(1)  # eigh sorts ascending


def _smallest_eigenpair(product: Callable[[Tensor], Tensor], start: Tensor, n_iter: int = 48) -> tuple[Tensor, Tensor]:
    """Return the smallest eigenvalue (M,) and its eigenvector (D, M) of M symmetric matrices.

    product: multiplies each matrix with its column of (D, M). start: the first column of each.

    This is Lanczos' method with full reorthogonalisation (Golub & Van Loan 2013, section 10.3). When the Krylov space
    of a matrix is exhausted, zero vectors and copies of its first diagonal entry follow. That entry is never below the
    smallest eigenvalue, so they do not change the result.
    """
    basis, diagonal, off_diagonal = [start / start.norm(dim=0)], [], []  # (D, M) each; (M,) each
    for _ in range(min(n_iter, len(start))):
        next_vector = product(basis[-1])
        diagonal.append((basis[-1] * next_vector).sum(0))
        diagonal[-1] = torch.where(basis[-1].any(dim=0), diagonal[-1], diagonal[0])
        if len(diagonal) == 1:
            tol = 10 * torch.finfo(next_vector.dtype).eps * next_vector.norm(dim=0)
        for _ in range(2):  # one pass of Gram-Schmidt leaves rounding of the size of eps; two remove it
            for q in basis:
                next_vector = next_vector - q * (q * next_vector).sum(0)
        norm = next_vector.norm(dim=0)
        active = norm > tol
        off_diagonal.append(norm * active)
        basis.append(torch.where(active, next_vector / norm, torch.zeros_like(next_vector)))
    t = torch.diag_embed(torch.stack(diagonal, 1))  # (M, k, k), tridiagonal
    if len(diagonal) > 1:
        off = torch.stack(off_diagonal[:-1], 1)
        t += torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    values, vectors = torch.linalg.eigh(t.double().nan_to_num(0, 0, 0))  # a network that diverged has NaN
    vector = torch.einsum("kdm,mk->dm", torch.stack(basis[:-1]), vectors[:, :, 0].to(start))
    return values[:, 0], vector / vector.norm(dim=0)
