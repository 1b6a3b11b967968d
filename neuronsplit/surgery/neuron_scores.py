"""Scores of the neurons of a layer, in any network: which one should `split_neuron` split?

    def loss(net, batch):
        images, labels = batch
        return cross_entropy(net(images), labels)

    scores = ns.neuron_scores(net, "1", loss, loader)
    ns.split_neuron(net, "0", scores.ablation_loss_increase.idxmax(), example_inputs=images)

Let a be the activations of a neuron, one for each example, position and call of the module. Let L be the mean loss
over all examples; it does not depend on how these are batched. The scores of the neuron are:

ablation_loss_increase: how much L increases if a is set to 0 (Morcos et al. 2018, arXiv 1803.06959).
activation_importance: Σ |a ∂L/∂a|, in the units of L too. To first order, L changes by at most this if a is set to
    0. With one position per example, it is the Taylor criterion of Molchanov et al. 2017 (arXiv 1611.06440).
activation_gradient_norm: √Σ (∂L/∂a)². With the number of examples N, it falls as 1/√N.
fire_rate: the share of a that is above 0.
activation_variance: the mean of (a − mean of a)².

The last two are those of growing/scores.py, whose ablation_loss and importance are others.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from difflib import get_close_matches
from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn

from neuronsplit.checks import nearest
from neuronsplit.surgery.activations import Activations
from neuronsplit.surgery.modes import in_evaluation
from neuronsplit.surgery.runs import require_module, tensors_of

ABLATION, GRADIENTS = "ablation_loss_increase", ("activation_importance", "activation_gradient_norm")
SCORES = (ABLATION, *GRADIENTS, "fire_rate", "activation_variance")


def neuron_scores(
    net: nn.Module,
    where: str,
    loss: Callable[[nn.Module, object], Tensor],
    batches: Iterable,
    *,
    scores: Sequence[str] = SCORES,
    axis: int | None = None,
) -> pd.DataFrame:
    """Score every neuron (channel) of a layer. The table has a row per neuron, by its number, and a column per score.

    net: any network. It runs in evaluation mode, and is unchanged at the end.
    where: a module by its name in `named_modules`. Its output, or the first tensor of it, has the activations. So "1"
        and not "0" has those after the ReLU in Sequential(Linear, ReLU). A unit of an LSTM, GRU or RNN is scored in
        both directions together, in the output and h_n of the last layer. Within the recurrence, it is never set to 0.
    loss: a function (net, batch) that returns the mean loss over a batch, a tensor with one number.
    batches: a list, a loader or a generator, which is read once. A batch weighs as much as its first tensor is long.
    scores: names of SCORES. The first takes a forward pass per neuron and batch, the others only one or two per batch.
    axis: that of the channels in the output. By default, it is 1 after convolutions, BatchNorm and GroupNorm. It is the
        last one after Linear, Embedding, LayerNorm, attention and LSTM, and wherever there are at most two axes.
    Raises ValueError for what is not allowed, such as a layer that does not run, or that the loss has no gradient by.
    """
    _require(net, where, batches, scores)
    sums, sizes = [], []  # per batch; sizes are in examples
    layer = Activations(where, axis, sizes)
    with ExitStack() as stack, in_evaluation(net), torch.compiler.set_stance("force_eager"):
        stack.callback(net.get_submodule(where).register_forward_hook(layer).remove)
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)  # fused kernels pass over hooks, as compiled code does
        for batch in batches:
            sizes.append(next((len(tensor) for tensor in tensors_of(batch) if tensor.dim()), 1))
            if sizes[-1]:
                sums += _sums(layer, partial(_loss_of, layer, net, loss, batch), scores, sizes[-1])
    if not sum(sizes):
        raise ValueError(f"batches {batches!r}: allowed are one or more, with examples in them")
    return _table(where, scores, sum(sizes), sums)


def _require(net: nn.Module, where: str, batches: Iterable, scores: Sequence[str]) -> None:
    """Raise ValueError for names that are not those of a module and of SCORES, and for no network or batches."""
    require_module(net)
    modules = {name: one for name, one in net.named_modules() if not isinstance(one, torch.jit.ScriptModule)}
    if where not in modules:
        names = get_close_matches(str(where), modules, 12, 0)
        raise ValueError(f"layer {where!r}{nearest(where, modules)}: allowed are names such as {names}")
    if isinstance(scores, str) or not scores or not set(scores) <= set(SCORES):
        near = "".join(nearest(name, SCORES) for name in scores if name not in SCORES)
        raise ValueError(f"scores {scores!r}{near}: allowed are lists of {', '.join(SCORES)}")
    kinds = {(t.dtype, t.dim()) for t in batches if isinstance(t, Tensor)} if isinstance(batches, tuple | list) else ()
    if not isinstance(batches, Iterable) or isinstance(batches, Tensor | Mapping | str) or len(kinds) > 1:  # one batch
        raise ValueError(f"batches of type {type(batches).__name__}: allowed are [(x, y), …], loaders and generators")


def _loss_of(layer: Activations, net: nn.Module, loss: Callable[[nn.Module, object], Tensor], batch: object) -> Tensor:
    """The loss of a batch. Random numbers are the same at every call."""
    with torch.random.fork_rng(devices=[]):  # other devices' are restored by in_evaluation
        torch.manual_seed(0)
        try:
            value = loss(net, batch)
        except Exception as error:
            if layer.has_run:
                raise
            why = " ".join(f"{type(batch).__name__} ({type(error).__name__}: {error})".split())
            raise ValueError(f"loss fails on a {why}: allowed are loss(net, batch), and batches [(x, y), …]") from error
    if not isinstance(value, Tensor) or value.numel() != 1:
        given = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise ValueError(f"loss {given}: allowed is a tensor with one number, the mean over a batch")
    return value.reshape(())


def _sums(layer: Activations, loss: Callable[[], Tensor], scores: Sequence[str], size: int) -> list[tuple]:
    """What a batch says of the neurons, in float64: one tuple, or none if the layer does not run."""
    with torch.set_grad_enabled(not set(scores).isdisjoint(GRADIENTS)):
        value = layer.run(loss)
    if not layer.calls:
        return []
    views, activations, shifts = zip(*layer.calls)
    found = torch.autograd.grad(value, shifts, allow_unused=True) if value.requires_grad else [None] * len(shifts)
    by_shift = [torch.zeros_like(a) if gradient is None else gradient for gradient, a in zip(found, activations)]
    a, gradient = (
        torch.cat([view(t).flatten(0, -2) for view, t in zip(views, tensors)]).cpu().double()  # (…, n)
        for tensors in (activations, by_shift)
    )
    increase = a.new_zeros(a.shape[1])
    if ABLATION in scores:
        losses = torch.stack([layer.run(loss, j).detach() for j in (None, *range(a.shape[1]))]).cpu().double()
        increase = size * (losses[1:] - losses[0])
    importance, squares = size * (a * gradient).abs().sum(0), size**2 * gradient.square().sum(0)
    fired, mean, variance = (a > 0).double().mean(0), a.mean(0), a.var(0, correction=0)
    return [(len(a), any(one is not None for one in found), increase, importance, squares, fired, mean, variance)]


def _table(where: str, scores: Sequence[str], n_examples: int, sums: list[tuple]) -> pd.DataFrame:
    """The scores over all batches."""
    if not sums:
        raise ValueError(f"layer {where!r} does not run when the loss is computed: allowed are modules that do")
    lengths, have_gradient, *found = zip(*sums)
    if not set(scores).isdisjoint(GRADIENTS) and not any(have_gradient):
        raise ValueError(f"the loss has no gradient by {where!r}: allowed are other layers, or other scores")
    increase, importance, squares, fired, mean, variance = map(torch.stack, found)  # (batches, n)
    weights = torch.tensor(lengths, dtype=torch.float64)[:, None] / sum(lengths)
    variance += (mean - (weights * mean).sum(0)).square()
    totals = increase.sum(0), importance.sum(0), squares.sum(0).sqrt()
    columns = [*(total / n_examples for total in totals), (weights * fired).sum(0), (weights * variance).sum(0)]
    return pd.DataFrame(dict(zip(SCORES, map(Tensor.numpy, columns))), columns=list(scores)).rename_axis("neuron")
