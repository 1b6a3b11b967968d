"""An experiment as a value, its tidy table, and the files that hold it."""

import gzip
import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import numpy as np
import pandas as pd
import torch

import neuronsplit
from neuronsplit import learned
from neuronsplit.data import DATASETS, Dataset, checksum, load_dataset
from neuronsplit.greedy import grow_greedily
from neuronsplit.growth import GROWTHS, INEXACT, WITHOUT_PARENT
from neuronsplit.model import MLP
from neuronsplit.optimizers import OPTIMIZERS
from neuronsplit.policies import POLICIES
from neuronsplit.training import BY_LOSS, SCHEDULES, grow

FITTING, FEW_GROUPS = 40, 8  # networks that train as one at most, groups of experiments that are few: see pieces
PIECES = "pieces"  # a folder beside the tables of whole experiments
LARGEST = 100_000  # of every count that an experiment has
ROOT = Path(__file__).parents[1]
RESULTS = 6  # raised when a change to the package changes what an experiment computes
CONTROL, NARROW = CONTROLS = "no-split", "stay-narrow"  # the final width from the start, the starting width for ever
GREEDY = "greedy"  # of every split there is the best one, an epoch later
LEARNED = "learned"  # the policy that weights of the package decide
COLUMNS = (  # of every table, first; then what else was measured
    "policy rule schedule dataset seed epoch hidden parameters split_neuron "
    "train_loss train_accuracy val_loss val_accuracy test_loss test_accuracy"
).split()
LABELS = (
    "policy rule schedule dataset optimizer learning_rate width splits still batch_size".split()
)  # columns that say which experiment it was
SETTINGS = "rule schedule optimizer learning_rate batch_size".split()  # handed on to training as they are


def policy_names() -> tuple[str, ...]:
    """The controls, every policy, and the oracle's greedy choice."""
    return *CONTROLS, *POLICIES, GREEDY


class Plan:
    """What the experiments of every kind have, each a frozen dataclass of all that decides its result.

    Those that are not `alone` train as one with those that differ from them in their policies alone. One trains so many
    `networks` a repeat; `run` does it, and its table has its rows in the order of `by`, at whose end it `ends` with
    some numbers. A notebook shows one of them, and another reports on a study of them.
    """

    notebook: ClassVar[str]
    report: ClassVar[str]
    by: ClassVar[str]
    ends: ClassVar[dict[str, Callable[[pd.DataFrame], float]]]
    alone = True

    def refuse(self, named: dict[str, Iterable[str]], least: dict[str, int]) -> None:
        """Raise ValueError for a field that holds none of some names, or is no whole number from the least allowed.

        A learning rate of 1 becomes 1.0, so that the two are one experiment.
        """
        for name, names in named.items():
            if getattr(self, name) not in tuple(names):
                raise ValueError(f"{name} {getattr(self, name)!r}: allowed are {', '.join(names)}")
        for name, lowest in least.items():
            value, most = getattr(self, name), LARGEST if name != "seed" else 2**32
            if type(value) is not int or not lowest <= value <= most:
                raise ValueError(f"{name} {value!r}: allowed are whole numbers from {lowest} to {most}")
        if self.seed + self.repeats - 1 > 2**32:
            raise ValueError(f"seed {self.seed} with repeats {self.repeats}: allowed are seeds to {2**32}")
        if type(self.learning_rate) not in (int, float) or not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate {self.learning_rate!r}: allowed are numbers above 0")
        object.__setattr__(self, "learning_rate", float(self.learning_rate))

    def arguments(self, folder: Path) -> dict:
        """The parameters of its notebook that show the one whose table is in a folder."""
        return asdict(self) | {"folder": str(folder)}

    @property
    def seeds(self) -> list[int]:
        """The seed of each repeat."""
        return list(range(self.seed, self.seed + self.repeats))

    @property
    def name(self) -> str:
        """A file name: its title, and a hash of all that decides the result: the fields, data, maths, and weights."""
        decides = [RESULTS, asdict(self), checksum(self.dataset)]
        if self.title == LEARNED:
            decides.append(hashlib.sha256(learned.FILE.read_bytes()).hexdigest())
        text = json.dumps(decides, sort_keys=True)
        return f"{self.title}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Experiment(Plan):
    """Everything that decides a result; the fields are the parameters of the experiment notebook, one to one.

    The control no-split trains the final width, width + splits, from the start; stay-narrow trains the starting width.
    What has no effect takes its default, so that equal experiments are one: rule and schedule of a control, policy of
    a rule that adds a neuron without a parent. Raises ValueError for a value not allowed.
    """

    policy: str = "random"  # which neuron is split, a control (no-split, stay-narrow), or greedy
    dataset: str = "digits"  # what is learned
    rule: str = "scaled"  # how a neuron is split, or another way to grow by one
    schedule: str = "every-epoch"  # when
    optimizer: str = "sgd"  # how the network learns
    width: int = 10  # hidden neurons at the start
    splits: int = 10  # neurons split, and as many epochs
    still: int = 10  # epochs after those
    repeats: int = 5  # networks, of seeds seed, seed + 1, …
    seed: int = 0  # of the first repeat
    learning_rate: float = 0.05  # of the optimiser
    batch_size: int = 32  # images a step

    notebook = "03_experiment"
    report = "04_comparison"
    by = "epoch"
    ends = {
        "test accuracy": lambda last: last["test_accuracy"].mean(),
        "test loss": lambda last: last["test_loss"].mean(),
    }

    def __post_init__(self):
        self.refuse(
            {
                "policy": policy_names(), "dataset": DATASETS, "rule": GROWTHS, "schedule": SCHEDULES,
                "optimizer": OPTIMIZERS,
            },
            {"width": 1, "splits": 0, "still": 0, "repeats": 1, "seed": 0, "batch_size": 1},
        )  # fmt: skip
        if self.epochs == 0:
            raise ValueError("splits 0 with still 0: allowed are at least one epoch")
        short = self.policy not in CONTROLS and self.schedule not in BY_LOSS and self._planned() < self.splits
        if short:
            raise ValueError(
                f"schedule {self.schedule!r} makes {self._planned()} of {self.splits} splits in {self.epochs} epochs: "
                "allowed are as many still epochs as it needs"
            )
        if self.policy in CONTROLS:
            object.__setattr__(self, "rule", Experiment.rule)
            object.__setattr__(self, "schedule", Experiment.schedule)
        ahead = self.still > 0 and self.schedule == "every-epoch" and self.rule not in (*INEXACT, *WITHOUT_PARENT)
        if self.policy == GREEDY and not ahead:
            raise ValueError(
                f"policy {GREEDY!r} with rule {self.rule!r}, schedule {self.schedule!r}, still {self.still}: "
                "allowed are exact splits, 'every-epoch' and an epoch after the last split"
            )
        if self.rule in WITHOUT_PARENT:
            object.__setattr__(self, "policy", Experiment.policy)

    def _planned(self) -> int:
        """Splits that a schedule which does not look at losses comes to make."""
        done = 0
        for epoch in range(1, self.epochs + 1):
            done += min(SCHEDULES[self.schedule](epoch, [], self.splits - done), self.splits - done)
        return done

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return self.splits + self.still

    @property
    def title(self) -> str:
        """What it is called, but for the settings."""
        return self.policy

    @property
    def alone(self) -> bool:
        """Also with a control, with a schedule by loss, for each repeat has its own times, and with many networks."""
        return self.policy in (*CONTROLS, GREEDY) or self.schedule in BY_LOSS

    @property
    def networks(self) -> int:
        """Networks that a repeat trains at a time, at most."""
        return self.width + self.splits if self.policy == GREEDY else 1

    @staticmethod
    def run(group: list["Experiment"]) -> Iterator[list[pd.DataFrame]]:
        """As `run_epochs` does."""
        return run_epochs(group)


def run_experiment(experiment: Experiment) -> pd.DataFrame:
    """Train all repeats of an experiment: its tidy table, a row a repeat and epoch, with the columns COLUMNS and more.

    split_neuron is the neuron split at the end of the epoch, or several in their order, as in "3 5"; its second twin
    is the new last neuron. Where a neuron was added without a parent it is "new". Accuracy and loss on the training
    images are means over the epoch as it went, those named last_batch are of its last mini-batch alone; validation is
    what the policy saw, before the split, and test comes after it.
    """
    return pd.concat((table for (table,) in run_epochs([experiment])), ignore_index=True)


def together(experiments: list[Plan]) -> list[list[Plan]]:
    """Experiments in groups that train as one: those that differ in their policies alone, else one by one."""
    groups: dict[Plan, list[Plan]] = {}
    for e in experiments:
        groups.setdefault(e if e.alone else replace(e, policy=Experiment.policy), []).append(e)
    return list(groups.values())


def dataset_of(experiment: Plan) -> Dataset:
    """The data that an experiment learns; raises ValueError where it has fewer training images than one batch."""
    dataset = load_dataset(experiment.dataset)
    available = len(dataset.train.labels)
    if experiment.batch_size > available:
        raise ValueError(f"batch_size {experiment.batch_size}: allowed are 1 to {available} on {experiment.dataset}")
    return dataset


def run_epochs(group: list[Experiment]) -> Iterator[list[pd.DataFrame]]:
    """The tidy tables of a group of `together` as it trains, one an experiment, epoch by epoch."""
    first, policies = group[0], [e.policy for e in group]
    dataset = dataset_of(first)
    width = first.width + first.splits if first.policy == CONTROL else first.width
    splits = 0 if first.policy in CONTROLS else first.splits
    settings = {name: getattr(first, name) for name in SETTINGS}
    for seeds in [[seed] for seed in first.seeds] if first.schedule in BY_LOSS else [first.seeds]:
        mlp = MLP((dataset.train.images.shape[1], width, len(dataset.classes)), len(seeds), seeds[0])
        mlp = mlp[[r for r in range(len(seeds)) for _ in group]]
        how = {"splits": splits, "epochs": first.epochs, **settings}
        if first.policy == GREEDY:
            del how["schedule"]
            records = grow_greedily(mlp, dataset, seeds, **how)
        else:
            records = grow(mlp, dataset, seeds, policies, **how)
        for record in records:
            record |= {"seed": np.repeat(seeds, len(group))}
            rows = pd.DataFrame(record).astype({"split_neuron": "string"})
            yield [_tidy(e, rows.iloc[turn :: len(group)]) for turn, e in enumerate(group)]


def _tidy(experiment: Experiment, rows: pd.DataFrame) -> pd.DataFrame:
    rows = pd.DataFrame({name: getattr(experiment, name) for name in LABELS}, rows.index).join(rows)
    return rows[[*COLUMNS, *(name for name in rows if name not in COLUMNS)]]


def obtain(experiment: Plan, folder: Path) -> pd.DataFrame:
    """An experiment's table: read where folder holds it, else trained and saved there."""
    table = load(experiment, folder)
    if table is None:
        train([experiment], folder)
        table = load(experiment, folder)
    return table


def train(group: list[Plan], folder: Path) -> None:
    """Train a group of `together` and save its tables in folder.

    They are written under another name as they train and renamed when whole, so that what has the right name is whole.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    parts = [part_file(e, folder, os.getpid()) for e in group]
    for part in parts:
        part.touch()
    for epoch, tables in enumerate(group[0].run(group)):
        for part, rows in zip(parts, tables):
            rows.to_csv(part, mode="a" if epoch else "w", header=not epoch, index=False, float_format="%.6g")
    seconds = round((time.perf_counter() - start) / len(group), 1)  # of the time that they took together
    for experiment, part in zip(group, parts):
        save(part, Path(folder) / f"{experiment.name}.csv", {"experiment": asdict(experiment), "seconds": seconds})


def pieces(planned: list[Plan]) -> list[dict[Plan, Plan]]:
    """What trains as one of some experiments: each of several, with the piece of it that is some of its repeats.

    A piece has at most FITTING networks, or one repeat, for more leave the cache and are slower. Where there are few
    groups of `together`, each is cut in two at least, so that there is work for two processes. It depends on what is
    planned alone, not on what is finished, and the rounding of the results with it.
    """
    groups, found = together(planned), []
    for group in groups:
        fitting = -(-sum(e.networks * e.repeats for e in group) // FITTING)
        cuts = max(fitting, 2 if len(groups) < FEW_GROUPS else 1)
        for seeds in np.array_split(group[0].seeds, min(cuts, group[0].repeats)):
            found.append({e: replace(e, seed=int(seeds[0]), repeats=len(seeds)) for e in group})
    return found


def join(experiment: Plan, its_pieces: list[Plan], folder: Path) -> None:
    """Save an experiment's table, put together from those of its pieces in folder/pieces."""
    files = [Path(folder) / PIECES / f"{piece.name}.csv" for piece in its_pieces]
    part = part_file(experiment, folder, os.getpid())
    texts, abouts = zip(*map(_checked, files))
    if its_pieces == [experiment]:
        part.write_bytes(texts[0])
    else:
        table = pd.concat(map(_parsed, texts)).sort_values(experiment.by, kind="stable")
        table.to_csv(part, index=False, float_format="%.6g")
    seconds = round(sum(about["seconds"] for about in abouts), 1)
    save(part, Path(folder) / f"{experiment.name}.csv", {"experiment": asdict(experiment), "seconds": seconds})


def part_file(experiment: Plan, folder: Path, process: int | str) -> Path:
    """Where a process of this machine writes an experiment's table as it trains."""
    return Path(folder) / f"{experiment.name}.{platform.node()}.{process}.part"


def load(experiment: Plan, folder: Path) -> pd.DataFrame | None:
    """An experiment's table from folder, or None; what is damaged or of another experiment is set aside."""
    try:
        text = whole(experiment, folder)
    except (ValueError, FileNotFoundError) as error:
        set_aside(Path(folder) / f"{experiment.name}.csv", error)
        return None
    return None if text is None else _parsed(text)


def whole(experiment: Plan, folder: Path) -> bytes | None:
    """The text of an experiment's table in folder, or None where it is not finished.

    Raises ValueError or FileNotFoundError where it is damaged or of another experiment.
    """
    file = Path(folder) / f"{experiment.name}.csv"
    if not about_file(file).exists():
        return None
    text, about = _checked(file)
    if about.get("experiment") != asdict(experiment):
        raise ValueError(f"{about_file(file)} is of another experiment")
    return text


def set_aside(file: Path, why: Exception) -> None:
    """Rename a table and its JSON file, so that they are neither read nor lost."""
    places = (file.with_name(f"{file.stem}.aside{n}") for n in count(1))
    place = next(place for place in places if not list(file.parent.glob(f"{place.name}.*")))
    for one in (file, about_file(file)):
        if one.exists():
            os.replace(one, place.with_name(place.name + one.suffix))
    warnings.warn(f"{why}; set aside as {place}.*", stacklevel=2)


def save(part: Path, file: Path, about: dict) -> None:
    """Give a whole table its name, with what produced it in a JSON file beside, which comes last."""
    digest = hashlib.sha256(part.read_bytes()).hexdigest()
    os.replace(part, file)
    text = json.dumps(about | {"sha256": digest} | circumstances(), indent=1)
    part.write_text(text)
    os.replace(part, about_file(file))


def about_file(file: Path) -> Path:
    """The JSON file beside a table, a .csv or .csv.gz."""
    return file.with_name(file.name.removesuffix(".gz")).with_suffix(".json")


def read_table(file: Path) -> tuple[pd.DataFrame, dict]:
    """A saved table and what produced it; raises ValueError where the table is not what its JSON file says."""
    text, about = _checked(Path(file))
    return _parsed(text), about


def _checked(file: Path) -> tuple[bytes, dict]:
    """The text of a saved table, and what produced it."""
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist: make run and make publish make such tables from a study")
    try:
        about = json.loads(about_file(file).read_text())
        digest = about["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{about_file(file)} is damaged ({error})") from error
    try:
        text = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file} is damaged ({error})") from error
    if digest != hashlib.sha256(text).hexdigest():
        raise ValueError(f"{file} is damaged (wrong checksum)")
    return text, about


def _parsed(text: bytes) -> pd.DataFrame:
    return pd.read_csv(BytesIO(text), dtype={"split_neuron": "string"})


def read_results(place: Path) -> tuple[pd.DataFrame, dict]:
    """Saved results and what produced them: a table, or all experiments in a study's folder or in a .zip of it.

    Such folders may have been moved, or merged from several. Raises ValueError where there is no experiment or one is
    damaged.
    """
    place = Path(place)
    if place.suffix == ".zip":
        with TemporaryDirectory() as folder:
            shutil.unpack_archive(place, folder)
            return read_results(Path(folder))
    if not place.is_dir():
        return read_table(place)
    files = (file for file in sorted(place.rglob("*-????????.json")) if PIECES not in file.relative_to(place).parts)
    found = {file.name: file for file in files}.values()  # each once, though in several folders
    if not found:
        raise ValueError(f"{place} holds no finished experiment: allowed are folders of a study that has run")
    tables, abouts = zip(*(read_table(file.with_suffix(".csv")) for file in found))
    for file, about in zip(found, abouts):
        if about.get("results") != RESULTS or set(about.get("experiment", {})) != {f.name for f in fields(Experiment)}:
            raise ValueError(f"{file} is of another version or kind: allowed are experiments of {version()}")
    given = {field.name: {about["experiment"][field.name] for about in abouts} for field in fields(Experiment)}
    parameters = {name: values.pop() if len(values) == 1 else sorted(values) for name, values in given.items()}
    order = sorted(range(len(found)), key=lambda n: policy_names().index(abouts[n]["experiment"]["policy"]))
    table = pd.concat([tables[n] for n in order]).drop_duplicates([*LABELS, "seed", "epoch"])  # fewer repeats, say
    return table.reset_index(drop=True), abouts[0] | {"parameters": parameters}


def version() -> str:
    """What has to be the same for results to be the same: the package's version, and that of its maths."""
    return f"{neuronsplit.__version__} (results {RESULTS})"


def circumstances() -> dict:
    """When, where and with which versions something ran; commit None without git or outside a checkout."""
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "results": RESULTS,
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version()} | {m.__name__: m.__version__ for m in (torch, np, pd)},
    }


@cache
def _commit() -> str | None:
    """The commit of this checkout, with -dirty where files differ from it, when this process first asked."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    if not shutil.which("git"):
        return None
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip() or None
