"""The splitting matrix of a neuron: how the loss curves along a split into two that part."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from neuronsplit.model import MLP

ENOUGH = 1000  # images that say in which directions images vary


def steepest_split(mlp: MLP, images: Tensor, labels: Tensor, neurons: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest eigenvalue (R, K) of the splitting matrices of neurons (R, K), and its eigenvector (R, K, n_in + 1).

    The splitting matrix of a neuron (w, b) of one hidden layer is S = E[∂L/∂a · σ''(z) x xᵀ], x the image and a 1:
    twins at (w, b) ± εu with half the outgoing weights each change the loss by ½ ε² uᵀS u (Wu, Wang & Liu 2019, arXiv
    1910.02366, theorem 2.3). As there, σ'' of ReLU is that of softplus with β = 3. Found by Lanczos' method,
    without forming S.
    """
    if len(mlp.weights) > 2:
        raise ValueError(f"sizes {mlp.sizes}: allowed is one hidden layer")
    w, b = (p.take_along_dim(neurons[..., None], 1) for p in (mlp.weights[-2], mlp.biases[-2]))  # (R, K, ·)
    fan_out = mlp.weights[-1].take_along_dim(neurons[:, None], 2)  # (R, C, K)
    back = mlp(images).softmax(2)  # (R, N, C)
    back[:, torch.arange(len(labels)), labels] -= 1
    x = torch.cat([images, images.new_ones(len(images), 1)], dim=1)  # (N, n_in + 1)
    z = x @ torch.cat([w, b], dim=2).flatten(0, 1).mT  # (N, R K)
    firing = torch.sigmoid(3 * z)
    curvature = 3 * firing * (1 - firing)  # softplus''
    weight = (back @ fan_out).transpose(0, 1).flatten(1) * curvature / len(images)  # (N, R K)
    start = torch.linspace(1, 2, x.shape[1]).to(x)[:, None].expand(-1, weight.shape[1])  # along no axis of symmetry
    values, vectors = _smallest_eigenpair(lambda q: x.mT @ (weight * (x @ q)), start)
    return values.unflatten(0, w.shape[:2]), vectors.mT.unflatten(0, w.shape[:2])


def smallest_eigenvalue(mlp: MLP, seen: Iterable, directions: int = 12, inputs: int = 32) -> Tensor:
    """Smallest eigenvalue (R, H) of every neuron's splitting matrix on the images of `scores.look`, nearly.

    Found in the space of the bias and the leading principal directions of ENOUGH images (Rayleigh-Ritz; Golub & Van
    Loan 2013, section 8.1): there all matrices are one product, of the weight of every image for every neuron with the
    products of every image's coordinates. z, for σ'' alone, is taken from so many directions too, `inputs`. So it is
    not below the least of the matrix itself but for that, and costs a hundredth of it.
    """
    if len(mlp.weights) > 2:
        raise ValueError(f"sizes {mlp.sizes}: allowed is one hidden layer")
    seen, (fan_in, fan_out), bias = list(seen), mlp.weights, mlp.biases[0]
    blocks = -(-ENOUGH // len(seen[0].labels))
    axes = _principal(torch.cat([block.images for block in seen[:blocks]])[:ENOUGH], inputs)  # (n_in, ≤ inputs)
    along = (fan_in @ axes).flatten(0, 1)  # (R H, ·)
    first, second = torch.triu_indices(*[min(directions, axes.shape[1]) + 1] * 2, device=axes.device)
    total = 0
    for images, labels, hidden, logits in seen:
        places = images @ axes  # (n, ·)
        firing = torch.addmm(bias.flatten()[:, None], along, places.mT).mul_(3).sigmoid_()  # (R H, n)
        _, back, _ = next(mlp.gradients(images, hidden, logits, labels))  # (R, C, n), of the block's mean loss
        weight = torch.bmm(fan_out.mT, back).flatten(0, 1).mul_(firing.addcmul_(firing, firing, value=-1))  # (R H, n)
        places = torch.cat([torch.ones_like(places[:, :1]), places], dim=1)
        total = total + weight @ (places[:, first] * places[:, second]) * len(labels)  # (R H, pairs)
    matrices = total.new_zeros(len(total), *[first.max() + 1] * 2)
    matrices[:, second, first] = total * (3 / sum(len(block.labels) for block in seen))  # eigvalsh reads the lower half
    values = torch.linalg.eigvalsh(matrices.double().nan_to_num(0, 0, 0))  # NaN: of a network that diverged
    return values[:, 0].unflatten(0, bias.shape[:2])


def _principal(images: Tensor, n: int, rounds: int = 3) -> Tensor:
    """The n leading principal directions (n_in, n) of images about 0, the first one first, by subspace iteration."""
    axes = images[:: max(1, len(images) // n)][:n].mT
    for _ in range(rounds):
        axes, _ = torch.linalg.qr(images.mT @ (images @ axes))
    _, turn = torch.linalg.eigh((images @ axes).mT @ (images @ axes))
    return axes @ turn.flip(1)


def _smallest_eigenpair(product: Callable[[Tensor], Tensor], start: Tensor, steps: int = 48) -> tuple[Tensor, Tensor]:
    """Smallest eigenvalue (M,) and eigenvector (D, M) of M symmetric matrices, from their products with vectors (D, M).

    Lanczos' method with full reorthogonalisation (Golub & Van Loan 2013, section 10.3). A column whose vectors are
    exhausted goes on with zeros, and with a copy of its first diagonal entry, which is never below the smallest value.
    """
    basis, diagonal, beside = [start / start.norm(dim=0)], [], []  # (D, M) each; (M,) each
    for _ in range(min(steps, len(start))):
        following = product(basis[-1])
        diagonal.append((basis[-1] * following).sum(0))
        diagonal[-1] = torch.where(basis[-1].any(dim=0), diagonal[-1], diagonal[0])
        if len(diagonal) == 1:
            least = 10 * torch.finfo(following.dtype).eps * following.norm(dim=0)
        for _ in range(2):
            for q in basis:
                following = following - q * (q * following).sum(0)
        norm = following.norm(dim=0)
        going = norm > least
        beside.append(norm * going)
        basis.append(torch.where(going, following / norm, torch.zeros_like(following)))
    t = torch.diag_embed(torch.stack(diagonal, 1))  # (M, k, k)
    if len(diagonal) > 1:
        t += torch.diag_embed(torch.stack(beside[:-1], 1), 1) + torch.diag_embed(torch.stack(beside[:-1], 1), -1)
    values, vectors = torch.linalg.eigh(t.double().nan_to_num(0, 0, 0))  # NaN: of a network that diverged
    vector = torch.einsum("kdm,mk->dm", torch.stack(basis[:-1]), vectors[:, :, 0].to(start))
    return values[:, 0], vector / vector.norm(dim=0)
