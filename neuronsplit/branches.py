"""Every split that a network could make, each trained on: one step of it, or all the way."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from neuronsplit.data import DATASETS, Dataset
from neuronsplit.growth import GROWTHS, WITHOUT_PARENT, branch, sample_of
from neuronsplit.model import MLP
from neuronsplit.optimizers import OPTIMIZERS, Optimizer, some, start
from neuronsplit.products import fast_products
from neuronsplit.scores import FEATURES, look
from neuronsplit.seeds import stream
from neuronsplit.study import Plan, dataset_of
from neuronsplit.training import evaluate, train_epoch

ORDERS = ("a", "b")  # two ways to go on, with mini-batches of their own: what is due to the choice shows in both
HORIZONS = (1, 3, 10)  # epochs after the split
DRAWS = 5  # other coefficients that the first neuron is split with
NEURON, DRAW, UNSPLIT = "neuron", "draw", "unsplit"  # kinds of rows


@dataclass(frozen=True)
class Branching(Plan):
    """Networks that are split in every way and trained on; the fields are the parameters of the notebook, one to one.

    Raises ValueError for a value not allowed.
    """

    dataset: str = "digits"  # what is learned
    rule: str = "scaled"  # how a neuron is split
    optimizer: str = "sgd"  # how the network learns
    learning_rate: float = 0.05  # of the optimiser
    width: int = 10  # hidden neurons, each of which is split
    grown: int = 0  # of them by splits of random neurons, one an epoch from the first on
    age: int = 5  # epochs before the split
    repeats: int = 5  # networks, of seeds seed, seed + 1, …
    seed: int = 0  # of the first repeat
    batch_size: int = 32  # images a step

    title = "branches"
    notebook = report = "09_how_good_could_a_choice_be"
    by = "horizon"
    ends = {
        "loss split": lambda last: last.loc[last["kind"] == NEURON, "loss_a"].mean(),
        "loss unsplit": lambda last: last.loc[last["kind"] == UNSPLIT, "loss_a"].mean(),
    }

    def __post_init__(self):
        rules = [rule for rule in GROWTHS if rule not in WITHOUT_PARENT]
        named = {"dataset": DATASETS, "rule": rules, "optimizer": OPTIMIZERS}
        self.refuse(named, {"width": 1, "grown": 0, "age": 0, "repeats": 1, "seed": 0, "batch_size": 1})
        if not self.grown <= min(self.width - 1, self.age):
            raise ValueError(
                f"grown {self.grown}: allowed are at most {min(self.width - 1, self.age)}, one an epoch, of width "
                f"{self.width} and age {self.age}"
            )

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return self.age + len(ORDERS) * max(HORIZONS)

    @property
    def networks(self) -> int:
        """Networks that a repeat trains at a time."""
        return self.width + DRAWS

    def arguments(self, folder: Path) -> dict:
        """Those of its notebook, which then looks at this table alone."""
        return super().arguments(folder) | {"table": ""}

    @staticmethod
    def run(group: list["Branching"]) -> Iterator[list[pd.DataFrame]]:
        """The table of every_split."""
        (branching,) = group
        yield [every_split(branching)]


def every_split(e: Branching) -> pd.DataFrame:
    """What becomes of every split of some networks: a row a branch and a horizon.

    Columns: the fields of `Branching` but for the repeats, seed, kind, neuron, horizon; loss_a and loss_b, on the
    validation images under two orders of the mini-batches after the split, and loss_before it; and of each of FEATURES
    what the neuron had. Of kind "neuron" are the H branches of a network, split with the same coefficients; of kind
    "draw" are splits of its first neuron with other coefficients; of kind "unsplit" is the network itself.
    """
    dataset = dataset_of(e)
    mlp, at_work, rngs = trained(e, dataset)
    with fast_products():
        seen = list(look(mlp, dataset.validation))
        known = {feature.__name__: feature(mlp, seen).float() for feature in FEATURES}  # (R, H) each
        before = evaluate(seen)[0].mean(1)  # (R,)
    neurons = torch.tensor([*range(e.width), *[0] * DRAWS]).expand(e.repeats, -1)  # (R, H + DRAWS)
    each = [again for rng in rngs for again in [*[deepcopy(rng) for _ in range(e.width)], *rng.spawn(DRAWS)]]
    branches = branch(mlp, at_work, neurons.to(before.device), e.rule, sample_of(dataset), each)
    kinds = [NEURON] * e.width + [DRAW] * DRAWS
    of_branches = {"seed": np.repeat(e.seeds, len(kinds)), "kind": np.tile(kinds, e.repeats)}
    of_branches |= {"neuron": neurons.flatten(), "loss_before": before.cpu().repeat_interleave(len(kinds))}
    of_branches |= {name: values.cpu().gather(1, neurons).flatten() for name, values in known.items()}
    whole = {"seed": e.seeds, "kind": UNSPLIT, "loss_before": before.cpu()}
    tables = []
    for found, networks in ((of_branches, branches), (whole, (mlp, at_work))):
        after = {}
        for turn, name in enumerate(ORDERS):
            order = [stream(seed, "order").spawn(len(ORDERS))[turn] for seed in e.seeds]
            after[name] = dict(follow(*networks, dataset, order, e.batch_size))
        for horizon in HORIZONS:
            losses = {f"loss_{name}": after[name][horizon] for name in ORDERS}
            tables.append(pd.DataFrame(found | {"horizon": horizon} | losses))
    table = pd.concat(tables).sort_values("horizon", kind="stable", ignore_index=True).astype({"neuron": "Int64"})
    fields = {name: value for name, value in asdict(e).items() if name not in ("repeats", "seed")}
    return pd.DataFrame(fields, table.index).join(table)


def trained(e: Branching, dataset: Dataset) -> tuple[MLP, Optimizer, list[np.random.Generator]]:
    """The networks that are to be split, the optimiser that has trained them, and the streams of their coefficients."""
    mlp = MLP((dataset.train.images.shape[1], e.width - e.grown, len(dataset.classes)), e.repeats, e.seed)
    at_work, order = start(e.optimizer, mlp, e.learning_rate), [stream(seed, "order") for seed in e.seeds]
    draws, coefficients = ([stream(seed, name) for seed in e.seeds] for name in ("draws", "coefficients"))
    for epoch in range(e.age):
        with fast_products():
            train_epoch(mlp, dataset.train, order, at_work, e.batch_size)
        if epoch < e.grown:
            neurons = torch.tensor([int(rng.integers(mlp.width)) for rng in draws])
            GROWTHS[e.rule](mlp, at_work, neurons, sample_of(dataset), coefficients)
    return mlp, at_work, coefficients


def follow(
    mlp: MLP, optimizer: Optimizer, dataset: Dataset, order: list[np.random.Generator], batch_size: int
) -> Iterator[tuple[int, Tensor]]:
    """Train networks on; yields each of HORIZONS with their validation losses (R,).

    Those of one order (S of them) see the same mini-batches. What is followed is a copy.
    """
    everyone = list(range(len(mlp.weights[0])))
    mlp, optimizer = mlp[everyone], some(optimizer, everyone)
    for epoch in range(1, max(HORIZONS) + 1):
        with fast_products():
            train_epoch(mlp, dataset.train, order, optimizer, batch_size)
            losses = evaluate(look(mlp, dataset.validation))[0].mean(1) if epoch in HORIZONS else None
        if epoch in HORIZONS:
            yield epoch, losses.cpu()
