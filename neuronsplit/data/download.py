"""Where Fashion-MNIST comes from: the folder of the data, Debian's package, or a download."""

import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
import zlib
from pathlib import Path

import torch

FOLDER = Path(os.environ.get("NEURONSPLIT_DATA", Path(__file__).parents[2] / "data"))
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_SHA256 = {  # by file, as torchvision unpacks it
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
    if missing:
        raw.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            packed = _find_packed_files(raw, Path(work))
            for name in missing:
                _unpack(packed / f"{name}.gz", Path(work) / name)
                os.replace(Path(work) / name, raw / name)
    for name in FASHION_MNIST_SHA256:
        _check(raw / name, blame=raw / name)


def _find_packed_files(raw: Path, work: Path) -> Path:
    """Return a folder with the four .gz files; they are fetched into `work` if this machine has none."""
    for folder in (raw, DEBIAN_FOLDER):
        if all((folder / f"{name}.gz").exists() for name in FASHION_MNIST_SHA256):
            return folder
    packed = _download_by_torchvision(work) or _download_by_apt(work)
    if packed is None:
        raise OSError(
            "Fashion-MNIST could not be downloaded by torchvision or apt-get: connect this machine, put the four .gz "
            f"files into {raw}, or use make run DATASET=digits"
        )
    return packed


def _unpack(packed: Path, target: Path) -> None:
    try:
        with gzip.open(packed) as source, open(target, "wb") as unpacked:
            shutil.copyfileobj(source, unpacked)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{packed} is damaged ({error}): delete it and run again") from error
    _check(target, blame=packed)


def _check(file: Path, blame: Path) -> None:
    """Compare an unpacked file with its checksum; the error names the file to blame."""
    with open(file, "rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != FASHION_MNIST_SHA256[file.name]:
        raise ValueError(f"{blame} is damaged ({blame.stat().st_size} bytes, wrong checksum): delete it and run again")


def _download_by_torchvision(work: Path) -> Path | None:
    """Download from torchvision's mirrors, if this machine reaches them."""
    try:
        import_torchvision_datasets().FashionMNIST(work, download=True)
    except (OSError, RuntimeError):
        return None
    return work / "FashionMNIST" / "raw"


def _download_by_apt(work: Path) -> Path | None:
    """Download and unpack the package of Debian or Ubuntu; this needs the distribution's mirror, but not root."""
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
