"""Where Fashion-MNIST comes from: the folder of the data, Debian's package, torchvision's mirrors, or apt-get."""

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path

import pooch
import requests
import torch

from neuronsplit.locations import ROOT

FOLDER = Path(os.environ.get("NEURONSPLIT_DATA") or ROOT / "data").expanduser()
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_SHA256 = {  # of the unpacked files, because Debian packs them anew
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def ensure_fashion_mnist(folder: Path) -> None:
    """Put Fashion-MNIST's files into a folder that lacks them, and check them all.

    Raises ValueError for a damaged file, which stays where it is.
    Raises OSError if no source can be reached.
    """
    raw = folder / "FashionMNIST" / "raw"
    missing = [name for name in FASHION_MNIST_SHA256 if not (raw / name).exists()]
    with tempfile.TemporaryDirectory() as work:
        packed = _find_packed_files(missing, raw, Path(work)) if missing else raw
        files = pooch.create(raw, str(packed), registry=FASHION_MNIST_SHA256, allow_updates=False)
        for name in files.registry:
            try:
                files.fetch(name, downloader=_unpack)
            except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
                file = packed / f"{name}.gz" if name in missing else raw / name
                message = f"{file} is damaged ({file.stat().st_size} bytes, wrong checksum): delete it and run again"
                raise ValueError(message) from error


def _unpack(url: str, target: str, _: pooch.Pooch) -> None:
    """Unpack url + ".gz", a local file, to the place where pooch checks it before it gets its name."""
    os.remove(target)  # it could be read by its owner only
    with gzip.open(f"{url}.gz") as source, open(target, "wb") as unpacked:
        shutil.copyfileobj(source, unpacked)


def _find_packed_files(missing: list[str], raw: Path, work: Path) -> Path:
    """Return a folder with the .gz of every missing file; they are fetched into `work` if this machine has none."""
    pooch.get_logger().setLevel("WARNING")  # it would print a line a file
    for folder in (raw, DEBIAN_FOLDER):
        if all((folder / f"{name}.gz").exists() for name in missing):
            _announce(folder)
            return folder
    packed = _download_from_mirrors(work) or _download_by_apt(work)
    if packed is None:
        raise OSError(
            "Fashion-MNIST could not be downloaded by torchvision or apt-get: connect this machine, put the four .gz "
            f"files into {raw}, or use make run DATASET=digits"
        )
    return packed


def _announce(source: Path | str) -> None:
    print(f"Fetching Fashion-MNIST (30 MB) from {source}", file=sys.stderr, flush=True)


def _download_from_mirrors(work: Path) -> Path | None:
    """Download from the first of torchvision's mirrors that has the files, if this machine reaches one."""
    source = import_torchvision_datasets().FashionMNIST
    for mirror in source.mirrors:
        _announce(mirror)
        files = pooch.create(work, mirror, registry={name: f"md5:{md5}" for name, md5 in source.resources})
        with suppress(requests.RequestException, ValueError):  # ValueError: the mirror sent something else
            for name in files.registry:
                files.fetch(name, downloader=pooch.HTTPDownloader(timeout=10))
            return work
    return None


def _download_by_apt(work: Path) -> Path | None:
    """Download and unpack the package of Debian or Ubuntu; this needs the distribution's mirror, but not root."""
    _announce("the distribution's mirror, by apt-get, which installs nothing")
    apt = 'apt-get -qq -oDir::State::Lists="$PWD/lists" -oDir::Cache="$PWD" -oAcquire::http::Timeout=10'
    script = f"mkdir -p lists/partial && {apt} update && {apt} download dataset-fashion-mnist && dpkg-deb -x *.deb ."
    finished = subprocess.run(script, shell=True, cwd=work, capture_output=True)
    return work / DEBIAN_FOLDER.relative_to("/") if finished.returncode == 0 else None


def import_torchvision_datasets():
    """Import torchvision.datasets, even if PyPI's torchvision (built for CUDA) is installed with a CPU-only torch.

    In that case torchvision's compiled operators do not load, and its import fails because two of them do not exist.
    Once they are declared without an implementation, everything in torchvision that is Python works.
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
