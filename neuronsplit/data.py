"""Datasets as tensors, and where they come from."""

import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(os.environ.get("NEURONSPLIT_DATA", Path(__file__).parents[1] / "data"))
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST = {  # file, as torchvision unpacks it: sha256
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
DIGITS = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"  # sha256 of all images, then labels


class Split(NamedTuple):
    """Images (N, pixels) in [−0.5, 0.5] and labels (N,)."""

    images: Tensor
    labels: Tensor


class Dataset(NamedTuple):
    """Three splits, the shape of an image, the names of the classes, and further splits to evaluate, by name."""

    train: Split
    validation: Split
    test: Split
    shape: tuple[int, int]
    classes: tuple[str, ...]
    also: Mapping[str, Split] = MappingProxyType({})


@cache
def load_dataset(name: str) -> Dataset:
    """A dataset by name, split into train, validation and test in the same way every time.

    Raises ValueError for an unknown name or a damaged file, OSError where Fashion-MNIST cannot be obtained.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset {name!r}: allowed are {', '.join(DATASETS)}")
    return DATASETS[name]()


def fashion_mnist() -> Dataset:
    """50,000 + 10,000 + 10,000 images of clothes, 28 × 28 (Xiao, Rasul & Vollgraf 2017, arXiv 1708.07747)."""
    obtain_fashion_mnist(FOLDER)
    source = import_torchvision_datasets().FashionMNIST
    train, test = source(FOLDER, train=True), source(FOLDER, train=False)
    train_part, validation_part = _shuffled(len(train.data)).split([50_000, 10_000])
    return Dataset(
        train=_pixels(train.data[train_part], train.targets[train_part], white=255),
        validation=_pixels(train.data[validation_part], train.targets[validation_part], white=255),
        test=_pixels(test.data, test.targets, white=255),
        shape=(28, 28),
        classes=tuple(source.classes),
    )


def fashion_mnist_2021() -> Dataset:
    """Fashion-MNIST with the test pixels of the 2021 study beside the right ones: x/255 · 0.5 for x/255 − 0.5."""
    right = fashion_mnist()
    images, labels = right.test
    return right._replace(also={"faulty_test": Split((images + 0.5) * 0.5, labels)})


def digits() -> Dataset:
    """1,200 + 297 + 300 handwritten digits, 8 × 8, that come with scikit-learn."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    if hashlib.sha256(b"".join(array.astype(np.uint8).tobytes() for array in (images, labels))).hexdigest() != DIGITS:
        raise ValueError("scikit-learn's digits are damaged (wrong checksum): install scikit-learn again")
    images, labels = torch.from_numpy(images), torch.from_numpy(labels)
    parts = _shuffled(len(images)).split([1200, 297, 300])
    splits = (_pixels(images[part], labels[part], white=16) for part in parts)
    return Dataset(*splits, shape=(8, 8), classes=tuple("0123456789"))


DATASETS = {"fashion-mnist": fashion_mnist, "fashion-mnist-2021": fashion_mnist_2021, "digits": digits}


def checksum(name: str) -> str:
    """What the files of a dataset are held to when they are loaded."""
    return DIGITS if name == "digits" else " ".join(FASHION_MNIST.values())


def _shuffled(n: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).permutation(n))


def _pixels(images: Tensor, labels: Tensor, white: int) -> Split:
    """Pixel values 0 to white as rows of numbers in [−0.5, 0.5]: the same for every split."""
    return Split(images.flatten(1).float().div_(white).sub_(0.5), labels.long())


def obtain_fashion_mnist(folder: Path) -> None:
    """See that folder holds Fashion-MNIST, from the first of: itself, Debian's package, a download.

    Raises ValueError for a damaged file, which stays where it is, and OSError where no source can be reached.
    """
    raw = folder / "FashionMNIST" / "raw"
    missing = [name for name in FASHION_MNIST if not (raw / name).exists()]
    if missing:
        raw.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            packed = _packed_files(raw, Path(work))
            for name in missing:
                _unpack(packed / f"{name}.gz", Path(work) / name)
                os.replace(Path(work) / name, raw / name)
    for name in FASHION_MNIST:
        _check(raw / name, of=raw / name)


def _packed_files(raw: Path, work: Path) -> Path:
    """The folder of the four .gz files, got into work where this machine has none."""
    here = (folder for folder in (raw, DEBIAN_FOLDER) if all((folder / f"{n}.gz").exists() for n in FASHION_MNIST))
    packed = next(here, None) or _downloaded(work) or _fetched_by_apt(work)
    if packed is None:
        raise OSError(
            "Fashion-MNIST could not be had from torchvision's download or from apt-get: connect this machine, put "
            f"the four .gz files into {raw}, or use the data that needs no network (make run DATASET=digits)"
        )
    return packed


def _unpack(packed: Path, target: Path) -> None:
    try:
        with gzip.open(packed) as source, open(target, "wb") as unpacked:
            shutil.copyfileobj(source, unpacked)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{packed} is damaged ({error}): delete it and run again") from error
    _check(target, of=packed)


def _check(file: Path, of: Path) -> None:
    """Hold one unpacked file to its checksum; `of` is the file to blame."""
    with open(file, "rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != FASHION_MNIST[file.name]:
        raise ValueError(f"{of} is damaged ({of.stat().st_size} bytes, wrong checksum): delete it and run again")


def _downloaded(work: Path) -> Path | None:
    """torchvision's download, where there is internet."""
    try:
        import_torchvision_datasets().FashionMNIST(work, download=True)
    except (OSError, RuntimeError):
        return None
    return work / "FashionMNIST" / "raw"


def _fetched_by_apt(work: Path) -> Path | None:
    """Debian's or Ubuntu's package, unpacked here: needs the distribution's mirror, but nobody has to be root."""
    lists = work / "lists" / "partial"
    lists.mkdir(parents=True)
    apt = ["apt-get", "-qq", "-o", f"Dir::State::Lists={lists.parent}", "-o", f"Dir::Cache={work}"]
    try:
        subprocess.run([*apt, "update"], check=True, capture_output=True)
        subprocess.run([*apt, "download", DEBIAN_PACKAGE], cwd=work, check=True, capture_output=True)
        subprocess.run(["dpkg-deb", "-x", next(work.glob("*.deb")), work], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return work / DEBIAN_FOLDER.relative_to("/")


def import_torchvision_datasets():
    """torchvision.datasets, also where PyPI's torchvision (built for CUDA) stands beside a CPU-only torch.

    There torchvision's compiled operators do not load, and its import fails for want of the two that it expects
    to exist; declared without an implementation they let everything written in Python work.
    """
    try:
        from torchvision import datasets
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for operator in ("nms", "qnms"):
            torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
        from torchvision import datasets
    return datasets
