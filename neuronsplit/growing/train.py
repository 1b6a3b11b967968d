"""Training: the loop over the mini-batches of an epoch, and the loop over epochs in which networks grow."""

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from neuronsplit.core.dropout import draw_masks
from neuronsplit.core.matmul import use_onednn_matmul
from neuronsplit.core.mlp import MLP
from neuronsplit.core.optimizers import Optimizer, Rates, make_optimizer, per_replica, reset_state, train_step
from neuronsplit.core.seeds import stream
from neuronsplit.data.datasets import Dataset, Subset
from neuronsplit.growing.how import GROWTH_IMAGES, GROWTHS
from neuronsplit.growing.metrics import block_metrics, cat_blocks, mean_metrics, per_example_metrics
from neuronsplit.growing.scores import forward_blocks, iter_blocks
from neuronsplit.growing.when import splits_due
from neuronsplit.growing.which import choose
from neuronsplit.names import NO_PARENT


@dataclass
class Run:
    """R networks in training, with their optimiser and their random streams.

    Each of S seeds has R / S consecutive replicas, which train on the same mini-batches.
    """

    seeds: list[int]
    mlp: MLP
    optimizer: Optimizer  # with the learning rates of the present epoch
    rates: Rates  # of all epochs
    dropout: Tensor  # (R, 1, 1) the probability with which a hidden activation is dropped in training
    order: list[np.random.Generator]  # a stream per seed: the order of the images
    coefficients: list[np.random.Generator]  # a stream per replica: what a growth draws
    draws: list[np.random.Generator]  # a stream per replica: what a policy draws
    batch_size: int
    state: str  # one of STATES
    n_epochs: int = 0
    grown_after: tuple[int, ...] = ()  # for each neuron that was added, the number of epochs before

    @classmethod
    def start(
        cls, mlp: MLP, seeds: list[int], optimizer: str, learning_rate: float | Tensor, batch_size: int, *,
        weight_decay: float | Tensor = 0.0, dropout: float | Tensor = 0.0, rate_after_split: float | Tensor = 1.0,
        annealing_epochs: float | Tensor = math.inf, state: str = "carry",
    ) -> "Run":  # fmt: skip
        """Start with a new optimiser, by its name in OPTIMIZERS, and with the streams of the seeds.

        learning_rate, weight_decay, dropout, rate_after_split, annealing_epochs: a number for all replicas, or one for
            each (R, 1, 1); see `Rates` and `Run`. state: one of STATES.
        Raises ValueError unless each seed has equally many replicas.
        """
        if mlp.n_replicas % len(seeds):
            raise ValueError(f"seeds {list(seeds)}: allowed are as many as divide the {mlp.n_replicas} replicas")
        of_replicas = [seed for seed in seeds for _ in range(mlp.n_replicas // len(seeds))]
        order = [stream(seed, "order") for seed in seeds]
        coefficients, draws = ([stream(s, purpose) for s in of_replicas] for purpose in ("coefficients", "draws"))
        made = make_optimizer(optimizer, mlp, learning_rate, weight_decay)
        rates = Rates(*(per_replica(value, mlp) for value in (learning_rate, rate_after_split, annealing_epochs)))
        dropout = per_replica(dropout, mlp)
        return cls(list(seeds), mlp, made, rates, dropout, order, coefficients, draws, batch_size, state)

    @use_onednn_matmul()
    def epoch(self, subset: Subset) -> tuple[Tensor, Tensor]:
        """Train one epoch on a shuffled subset; the last partial mini-batch is dropped.

        Returns the loss and the correctness (R, N) of each image with dropout, before the step that learns from it.
        """
        self.optimizer.learning_rate = self.rates.after(self.n_epochs, bool(self.grown_after))
        n_steps, metrics = subset.labels.shape[-1] // self.batch_size, []
        masks = draw_masks(self.mlp, self.dropout, self.seeds, self.optimizer.n_steps, self.batch_size)
        for step, (batch, of_step) in enumerate(zip(self.batches(subset), masks), start=1):
            metrics.append(per_example_metrics(self._step(*batch, of_step, step / n_steps), batch[1]))
        self.mlp.epochs_since_split += 1
        self.n_epochs += 1
        return cat_blocks(metrics)

    def _step(self, images: Tensor, labels: Tensor, masks: list[Tensor], share: float) -> Tensor:
        """Make a training step; return the logits before it. New neurons that warm up make a share of theirs."""
        n_new = self.grown_after.count(self.n_epochs) if self.state == "warm-up" else 0
        new = self.mlp.neurons(slice(-n_new, None)) if n_new else []
        before = [p.clone() for p in new]
        logits = train_step(self.mlp, images, labels, self.optimizer, masks)
        for p, q in zip(new, before):
            p.lerp_(q, 1 - share)
        return logits

    def batches(self, subset: Subset) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffle a subset for each seed, and yield mini-batches: images (S, B, n_in) and labels (R, B).

        Raises ValueError where each seed has images of its own, and there are other seeds than these.
        """
        n_seeds, n_images = len(self.order), subset.labels.shape[-1]
        images, labels = subset.pool if subset.by_seed else subset
        n_used = n_images - n_images % self.batch_size
        index = torch.from_numpy(np.stack([rng.permutation(n_images)[:n_used] for rng in self.order]))  # (S, N)
        index = index.to(labels.device)
        if subset.by_seed:
            if len(subset.rows) != n_seeds:
                raise ValueError(f"images of {len(subset.rows)} seeds: allowed are {n_seeds}, or the same for all")
            index = subset.rows.gather(1, index)
        labels = labels[index].repeat_interleave(self.mlp.n_replicas // n_seeds, dim=0)  # (R, N)
        for i, batch_labels in zip(index.split(self.batch_size, dim=1), labels.split(self.batch_size, dim=1)):
            yield images.index_select(0, i.flatten()).unflatten(0, i.shape), batch_labels

    @use_onednn_matmul()
    def evaluate(self, subset: Subset) -> tuple[Tensor, Tensor]:
        """Return the loss and the correctness (R, N) of each image of a subset."""
        return block_metrics(iter_blocks(self.mlp, subset))

    @use_onednn_matmul()
    def grow(self, growth: str, neurons: Tensor | None, subset: Subset) -> None:
        """Grow each network by one neuron: neurons (R,) are the parents, subset is the training data."""
        sample = subset.head(GROWTH_IMAGES)
        GROWTHS[growth].apply(self.mlp, self.optimizer, neurons, sample, self.coefficients)
        if self.state != "carry":
            reset_state(self.optimizer, 1)
        self.grown_after += (self.n_epochs,)

    def fork(self, replicas: list[int]) -> "Run":
        """Return an independent copy of some replicas, which goes on as this run would; one may be named several times.

        Raises ValueError unless all seeds have equally many of the replicas, in the order of the seeds.
        """
        n_seeds = len(self.seeds)
        per_seed, new_per_seed = (n // n_seeds for n in (self.mlp.n_replicas, len(replicas)))
        seeds = [seed for seed in range(n_seeds) for _ in range(new_per_seed)]
        if not replicas or [r // per_seed for r in replicas] != seeds:
            raise ValueError(f"replicas {replicas}: allowed are equally many of each seed, in the order of the seeds")
        # They are copied one by one, because deepcopy of a list would let replicas that are named twice share a stream.
        coefficients, draws = ([deepcopy(streams[r]) for r in replicas] for streams in (self.coefficients, self.draws))
        made = replace(self, mlp=self.mlp[replicas], optimizer=self.optimizer[replicas], dropout=self.dropout[replicas])
        rates, order = Rates(*(values[replicas] for values in self.rates)), deepcopy(self.order)
        return replace(made, rates=rates, order=order, coefficients=coefficients, draws=draws)


def grow_while_training(
    run: Run, dataset: Dataset, policies: list[str], *, growth: str, schedule: str, splits: int, epochs: int
) -> Iterator[dict[str, int | list | None | Tensor]]:
    """Train networks in place and grow them by `splits` neurons; yield a record per epoch.

    run: has one replica per policy for the first seed, then for the next. policies, growth, schedule: names in
        POLICIES, GROWTHS and SCHEDULES.
    Yields dicts by column of the table. Values are numbers for all replicas, or have an entry per replica (R,).
    Raises ValueError where a data-dependent schedule makes replicas grow at different epochs: train them one by one.
    Raises ValueError for another number of replicas.
    """
    if run.mlp.n_replicas != len(run.seeds) * len(policies):
        raise ValueError(f"policies {policies}: allowed is one for each replica of a seed")
    val_losses: list[list[float]] = [[] for _ in range(run.mlp.n_replicas)]
    for epoch in range(1, epochs + 1):
        due = splits_due(schedule, epoch, val_losses, splits)
        splits -= due
        record = {"epoch": epoch} | _train_and_grow(run, dataset, policies, growth, due)
        for losses, loss in zip(val_losses, record["val_loss"].tolist()):
            losses.append(loss)
        yield record


@use_onednn_matmul()
def _train_and_grow(run: Run, dataset: Dataset, policies: list[str], growth: str, n_splits: int) -> dict:
    """Train an epoch, evaluate on the validation images, grow, evaluate on the test images; return the record."""
    record = train_metrics(run, *run.epoch(dataset.train))
    # All activations are stored only if a policy reads them again.
    blocks = (forward_blocks if n_splits else iter_blocks)(run.mlp, dataset.validation)
    record |= mean_metrics("val", *block_metrics(blocks))
    parents = []
    for i in range(n_splits):
        blocks = forward_blocks(run.mlp, dataset.validation) if i else blocks
        needs_parent = GROWTHS[growth].needs_parent
        neurons = choose(policies, run.mlp, blocks, run.draws) if needs_parent else None  # (R,)
        run.grow(growth, neurons, dataset.train)
        parents.append(map(str, neurons.tolist()) if needs_parent else [NO_PARENT] * run.mlp.n_replicas)
    record |= {"split_neuron": [" ".join(names) for names in zip(*parents)] or None}
    return record | test_metrics(run, dataset)


def train_metrics(run: Run, losses: Tensor, correct: Tensor) -> dict[str, Tensor]:
    """Return mean metrics (R,) over an epoch of training, and over its last mini-batch alone."""
    last = (values[:, -run.batch_size :] for values in (losses, correct))
    return mean_metrics("train", losses, correct) | mean_metrics("last_batch", *last)


def test_metrics(run: Run, dataset: Dataset) -> dict[str, int | Tensor]:
    """Return the networks' sizes, and mean metrics (R,) on the test images and any further parts of the data."""
    record = {"hidden": run.mlp.width, "parameters": run.mlp.n_parameters()}
    for name, subset in {"test": dataset.test, **dataset.extra_test}.items():
        record |= mean_metrics(name, *run.evaluate(subset))
    return record
