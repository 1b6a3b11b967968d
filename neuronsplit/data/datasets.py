"""Data sets as tensors, and the registry of them."""

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from neuronsplit.data import download

# This is the sha256 of scikit-learn's digits: all images as bytes, then all labels.
DIGITS_SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


class Subset(NamedTuple):
    """A part of a data set; all seeds share it, or a leading axis S holds one part per seed."""

    images: Tensor  # (N, n_in) or (S, N, n_in) of floats; those of the package lie in [−0.5, 0.5]
    labels: Tensor  # (N,) or (S, N) of int64

    def head(self, n: int) -> "Subset":
        """Return the first n examples, or those of each seed."""
        return Subset(self.images[..., :n, :], self.labels[..., :n])


class Dataset(NamedTuple):
    """A data set in three parts, with what is needed to draw its images."""

    train: Subset
    validation: Subset  # what a policy may look at
    test: Subset
    shape: tuple[int, int]  # height and width of an image
    classes: tuple[str, ...]  # names of the labels 0, 1, …
    extra_test: Mapping[str, Subset] = MappingProxyType({})  # further parts to evaluate, by name


def load_dataset(name: str) -> Dataset:
    """Load a data set by its name in DATASETS; the result is cached.

    Raises ValueError for an unknown name, a damaged file, or tensors that are not those of a `Subset`.
    Raises OSError if the data cannot be obtained.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset {name!r}: allowed are {', '.join(DATASETS)}")
    return _load(DATASETS[name])


@cache  # by function: a name that is registered again with another function is loaded again
def _load(loader: Callable[[], Dataset]) -> Dataset:
    dataset = loader()
    for name, (images, labels) in _parts(dataset):
        if (images.dtype, labels.dtype) != (torch.float32, torch.int64):
            raise ValueError(f"{name} has {images.dtype} and {labels.dtype}: allowed are float32 images, int64 labels")
        shapes = tuple(images.shape), tuple(labels.shape)
        if len(shapes[0]) not in (2, 3) or shapes[0][:-1] != shapes[1] or not labels.numel():
            raise ValueError(f"{name} has shapes {shapes}: allowed are ((N, n_in), (N,)) or ((S, N, n_in), (S, N))")
        if not 0 <= labels.min() <= labels.max() < len(dataset.classes):
            raise ValueError(f"{name} has label {labels.max()}: allowed are 0 to {len(dataset.classes) - 1}")
    return dataset


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


DATASETS = {"fashion-mnist": fashion_mnist, "fashion-mnist-2021": fashion_mnist_2021, "digits": digits}


def _shuffled(n: int) -> Tensor:
    """Return a permutation of n indices: the same one every time, so that all seeds share one split of the data."""
    return torch.from_numpy(np.random.default_rng(0).permutation(n))


def _to_subset(images: Tensor, labels: Tensor, max_value: int) -> Subset:
    """Turn pixel values from 0 to max_value into rows in [−0.5, 0.5], by the same formula for every part."""
    return Subset(images.flatten(1).float().div_(max_value).sub_(0.5), labels.long())
