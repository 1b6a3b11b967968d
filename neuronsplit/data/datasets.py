"""Data sets as tensors, and the registry of them."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from neuronsplit.checks import describe_error, require_name
from neuronsplit.core.seeds import stream
from neuronsplit.data import download
from neuronsplit.data.mnist_1d import ensure_mnist_1d

# This is the sha256 of scikit-learn's digits: all images as bytes, then all labels.
DIGITS_SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


class Subset:
    """A part of a data set: images (N, n_in) with labels (N,), or those of S seeds, (S, N, n_in) with (S, N).

    images: floats (M, n_in); pixels of the package lie in [−0.5, 0.5]. labels: int64 (M,).
    rows: which of these the part has: a slice, or (S, N) whole numbers, with a row per seed.
    What is given is the pool, which several parts can share. The images of seeds are copied each time they are read.
    """

    def __init__(self, images: Tensor, labels: Tensor, rows: slice | Tensor = slice(None)):
        self.pool, self.rows = (images, labels), rows

    @property
    def images(self) -> Tensor:
        """The images, (N, n_in) or (S, N, n_in)."""
        images, rows = self.pool[0], self.rows
        return images[rows] if isinstance(rows, slice) else embedding(rows, images)  # which is faster than images[rows]

    @property
    def labels(self) -> Tensor:
        """The labels, (N,) or (S, N)."""
        return self.pool[1][self.rows]

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.images, self.labels))

    @property
    def by_seed(self) -> bool:
        """Whether each seed has examples of its own."""
        return isinstance(self.rows, Tensor) and self.rows.dim() == 2

    def of_seeds(self) -> Iterator["Subset"]:
        """Yield the part of each seed, where each has examples of its own."""
        for rows in self.rows:
            yield Subset(*(tensor[rows] for tensor in self.pool))

    def split(self, size: int) -> list["Subset"]:
        """Cut it into blocks of so many examples, or of so many of each seed; the last one can be smaller."""
        if self.by_seed:
            return [Subset(*self.pool, rows) for rows in self.rows.split(size, dim=1)]
        return [Subset(*block) for block in zip(*(tensor.split(size) for tensor in self))]

    def head(self, n: int) -> "Subset":
        """Return the first n examples, or those of each seed."""
        return self.split(n)[0]


class Dataset(NamedTuple):
    """A data set in three parts, with what is needed to draw its images."""

    train: Subset
    validation: Subset  # what a policy may look at
    test: Subset
    shape: tuple[int, int]  # height and width of an image
    classes: tuple[str, ...]  # names of the labels 0, 1, …
    extra_test: Mapping[str, Subset] = MappingProxyType({})  # further parts to evaluate, by name


def load_dataset(name: str, seeds: Sequence[int] | None = None) -> Dataset:
    """Load a data set by its name in DATASETS; the result is cached.

    seeds: whole numbers from 0. Each has a split of its own, in which the training and the validation examples are
        drawn anew from all of both. The test examples are the same for all.

    Raises ValueError for an unknown name, a damaged file, or tensors that are not those of a `Subset`.
    Raises OSError if the data cannot be obtained.
    """
    require_name("dataset", name, DATASETS)
    dataset = _load(DATASETS[name])
    if seeds is None:
        return dataset
    pool, n_train = dataset.train.pool, len(dataset.train.labels)
    orders = np.stack([stream(seed, "split").permutation(len(pool[1])) for seed in seeds])
    train, validation = (Subset(*pool, torch.from_numpy(rows)) for rows in np.split(orders, [n_train], axis=1))
    return dataset._replace(train=train, validation=validation)


@cache  # by function: a name that is registered again with another function is loaded again
def _load(loader: Callable[[], Dataset]) -> Dataset:
    function = getattr(loader, "__name__", loader)
    try:
        dataset = loader()
    except Exception as error:
        if loader in PROVIDED:  # their errors are one line already
            raise
        said = f"data set of {function} fails ({describe_error(error)})"
        raise ValueError(f"{said}: allowed are functions that return a Dataset") from error
    if not isinstance(dataset, Dataset):
        raise ValueError(f"data set of type {type(dataset).__name__}, returned by {function}: allowed is a Dataset")
    n_in = dataset.train.images.shape[-1:]
    for name, (images, labels) in _parts(dataset):
        if (images.dtype, labels.dtype) != (torch.float32, torch.int64):
            raise ValueError(f"{name} has {images.dtype} and {labels.dtype}: allowed are float32 images, int64 labels")
        shapes = tuple(images.shape), tuple(labels.shape)
        if shapes[0] != (*shapes[1], *n_in) or labels.dim() != 1 or not labels.numel():
            raise ValueError(f"{name} has shapes {shapes}: allowed are ((N, n_in), (N,)), with one n_in in all parts")
        if not 0 <= labels.min() <= labels.max() < len(dataset.classes):
            raise ValueError(f"{name} has label {labels.max()}: allowed are 0 to {len(dataset.classes) - 1}")
    pool, n_train = [torch.cat(tensors) for tensors in zip(*dataset[:2])], len(dataset.train.labels)
    train, validation = Subset(*pool, slice(n_train)), Subset(*pool, slice(n_train, None))
    return dataset._replace(train=train, validation=validation)  # so that seeds can share the pool


def _parts(dataset: Dataset) -> list[tuple[str, Subset]]:
    """Return all parts of a data set with their names."""
    return [*zip(("train", "validation", "test"), dataset[:3]), *dataset.extra_test.items()]


def fingerprint(dataset: Dataset) -> str:
    """Return the sha256 of a data set's tensors, shape and classes, in hexadecimal: equal ones have the same."""
    digest = hashlib.sha256(repr((tuple(dataset.shape), tuple(dataset.classes))).encode())
    for name, subset in _parts(dataset):
        for tensor in subset:
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().cpu().numpy().data)
    return digest.hexdigest()


def fashion_mnist() -> Dataset:
    """Load 50,000 + 10,000 + 10,000 images of clothes, 28 × 28 (Xiao, Rasul & Vollgraf 2017, arXiv 1708.07747)."""
    download.ensure_fashion_mnist(download.FOLDER)
    source = download.import_torchvision_datasets().FashionMNIST
    train, test = source(download.FOLDER, train=True), source(download.FOLDER, train=False)
    parts = _shuffled(len(train.data)).split([50_000, 10_000])
    subsets = [_to_subset(train.data[part], train.targets[part], max_value=255) for part in parts]
    subsets.append(_to_subset(test.data, test.targets, max_value=255))
    return Dataset(*subsets, shape=(28, 28), classes=tuple(source.classes))


def fashion_mnist_2021() -> Dataset:
    """Load Fashion-MNIST with a further part, the 2021 study's faulty test images.

    Its pixels are x/255 · 0.5, where x/255 − 0.5 was meant.
    """
    correct = load_dataset("fashion-mnist")
    images, labels = correct.test
    return correct._replace(extra_test={"faulty_test": Subset((images + 0.5) * 0.5, labels)})


def digits() -> Dataset:
    """Load 1,200 + 297 + 300 handwritten digits, 8 × 8, that come with scikit-learn."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    raw = b"".join(array.astype(np.uint8).tobytes() for array in (images, labels))
    if hashlib.sha256(raw).hexdigest() != DIGITS_SHA256:
        raise ValueError("scikit-learn's digits are damaged (wrong checksum): install scikit-learn again")
    images, labels = torch.from_numpy(images), torch.from_numpy(labels)
    parts = _shuffled(len(images)).split([1200, 297, 300])
    subsets = (_to_subset(images[part], labels[part], max_value=16) for part in parts)
    return Dataset(*subsets, shape=(8, 8), classes=tuple("0123456789"))


def mnist_1d() -> Dataset:
    """Load 3,000 + 1,000 + 1,000 signals of 40 values, like digits (Greydanus & Kobak 2024, arXiv 2011.14439).

    All values together have mean 0 and variance 1. The authors have no validation examples: both first parts are their
    training examples.
    """
    rows = torch.from_numpy(ensure_mnist_1d(download.FOLDER))  # (5000, 41), with the label last
    subsets = (Subset(part[:, :-1].contiguous(), part[:, -1].long()) for part in rows.split([3000, 1000, 1000]))
    return Dataset(*subsets, shape=(1, 40), classes=tuple("0123456789"))


DATASETS = {
    "fashion-mnist": fashion_mnist, "fashion-mnist-2021": fashion_mnist_2021, "digits": digits, "mnist-1d": mnist_1d,
}  # fmt: skip
PROVIDED = tuple(DATASETS.values())  # those of the package


def _shuffled(n: int) -> Tensor:
    """Return a permutation of n indices: the same one every time."""
    return torch.from_numpy(np.random.default_rng(0).permutation(n))


def _to_subset(images: Tensor, labels: Tensor, max_value: int) -> Subset:
    """Turn pixel values from 0 to max_value into rows in [−0.5, 0.5], by the same formula for every part."""
    return Subset(images.flatten(1).float().div_(max_value).sub_(0.5), labels.long())
