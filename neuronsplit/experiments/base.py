"""What experiments of every kind have in common."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import fields
from functools import cache

from neuronsplit import extensions
from neuronsplit.checks import MAX_COUNT, require_fields, require_name, require_whole_number
from neuronsplit.core.optimizers import OPTIMIZERS
from neuronsplit.data.datasets import DATASETS, Dataset, fingerprint, load_dataset
from neuronsplit.growing import learned, which
from neuronsplit.names import CONTROLS, GREEDY, RATE_SCHEDULES, RESULTS_VERSION, STATES

NUMBERS = {  # of fields: what is allowed in words, and whether a number is
    "weight_decay": ("numbers from 0", lambda value: 0 <= value < math.inf),
    "dropout": ("numbers from 0 to below 1", lambda value: 0 <= value < 1),
}
ABOVE_0 = "numbers above 0", lambda value: 0 < value < math.inf
# Seconds of a training step on a core with AVX-512: of the step, of each network, and of a multiply-add. They were
# fitted to 1 to 35 networks of 10 to 60 neurons.
STEP_SECONDS, NETWORK_SECONDS, MULTIPLY_ADD_SECONDS = 2e-4, 1e-5, 6e-12
LOWEST = {"width": 1, "epochs": 1, "batch_size": 1}  # of counts; the others may be 0


class BaseExperiment:
    """What experiments of every kind have in common; each kind is a frozen dataclass of all that decides its result.

    notebook: trains such experiments. report: the notebook that reports on a study of them.
    train: a function of experiments of one `group` and of seeds. It yields rows of them, with their ids in the column
        EXPERIMENT.
    by_seed: whether its seeds train one after the other. n_networks: how many networks a seed trains at a time.
    """

    by_seed = False
    n_networks = 1

    def __new__(cls, *values: object, **given: object) -> "BaseExperiment":
        """Raise TypeError for a name that is not that of a field."""
        require_fields(cls, given)
        return super().__new__(cls)

    def __post_init__(self):
        names = {field: registry for field, (registry, _, _) in extensions.REGISTRIES.items()}
        names |= {"policy": policy_names(), "optimizer": OPTIMIZERS, "rate_schedule": RATE_SCHEDULES, "state": STATES}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is str:
                require_name(field.name, value, names[field.name], extensions.OWN.get(field.name, ""))
                extensions.require_entry(field.name, value)
            if field.type is int:
                require_whole_number(field.name, value, LOWEST.get(field.name, 0), MAX_COUNT)
            if field.type is float:
                allowed, is_allowed = NUMBERS.get(field.name, ABOVE_0)
                if type(value) not in (int, float) or not is_allowed(value):
                    raise ValueError(f"{field.name} {value!r}: allowed are {allowed}")
                object.__setattr__(self, field.name, float(value))  # so that 1 and 1.0 are the same

    @property
    def canonical(self) -> "BaseExperiment":
        """The experiment with defaults in the fields that have no effect."""
        return self

    @property
    def group(self) -> "BaseExperiment":
        """What it has in common with the experiments that it can train together with: all but the policy, or all."""
        return self

    @property
    def id(self) -> str:
        """16 hexadecimal digits of a hash of everything but the seed that decides the result.

        These are the fields, the data, the version of the results and the weights of a fitted policy. What the
        package does not register counts by its source.
        """
        own = vars(self.canonical)
        decides = [type(self).__name__, RESULTS_VERSION, own, _fingerprint(self.dataset, DATASETS[self.dataset])]
        decides.append(extensions.describe_entries(own))
        if (policy := own.get("policy")) in learned.weights():  # they come with the package
            decides.append({name: values.tolist() for name, values in learned.weights()[policy].items()})
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


@cache  # by the function too, so that a name that is registered anew is not taken for what it was
def _fingerprint(name: str, loader: object) -> str:
    return fingerprint(load_dataset(name))


def policy_names() -> tuple[str, ...]:
    """Return the names of the controls, of every registered policy, and of the greedy choice.

    Raises ValueError where a registered policy has the name of another.
    """
    extensions.refuse_reserved_names()
    return *CONTROLS, *which.POLICIES, GREEDY


def dataset_of(experiment: BaseExperiment, seeds: Sequence[int] | None = None) -> Dataset:
    """Return the data of an experiment, split by each of some seeds into training and validation examples.

    Raises ValueError where a mini-batch needs more images than there are.
    """
    dataset = load_dataset(experiment.dataset, seeds)
    available = dataset.train.labels.shape[-1]
    if experiment.batch_size > available:
        raise ValueError(f"batch_size {experiment.batch_size}: allowed are 1 to {available} on {experiment.dataset}")
    return dataset


def training_seconds(experiments: Sequence[BaseExperiment], n_seeds: int) -> float:
    """Return roughly the seconds that experiments of one `group` train on one core."""
    first, dataset = experiments[0], dataset_of(experiments[0])
    n_networks, n_runs = len(experiments) * n_seeds, n_seeds if first.by_seed else 1
    weights = (first.width + getattr(first, "splits", 0)) * (dataset.train.images.shape[-1] + len(dataset.classes))
    multiply_adds = 3 * first.batch_size * weights  # forward, and two products backward
    of_networks = n_networks * first.n_networks * (NETWORK_SECONDS + MULTIPLY_ADD_SECONDS * multiply_adds)
    n_steps = first.epochs * (dataset.train.labels.shape[-1] // first.batch_size)
    return n_steps * (STEP_SECONDS * n_runs + of_networks)
