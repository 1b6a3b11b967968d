import gzip
import hashlib
import struct
import subprocess
import sys

import pytest

from neuronsplit.data import download
from neuronsplit.data.download import FASHION_MNIST_SHA256, ensure_fashion_mnist, import_torchvision_datasets


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """Four small .gz files in the published format, their checksums in place of the real ones, and no other source."""
    folder = tmp_path / "packed"
    folder.mkdir()
    checksums = {}
    for name in FASHION_MNIST_SHA256:
        shape = (5, 28, 28) if "images" in name else (5,)
        size = 5 * 784 if "images" in name else 5
        content = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + bytes(i % 10 for i in range(size))
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        checksums[name] = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(download, "FASHION_MNIST_SHA256", checksums)
    monkeypatch.setattr(download, "DEBIAN_FOLDER", folder)
    monkeypatch.setattr(download, "_download_by_torchvision", lambda work: None)
    monkeypatch.setattr(download, "_download_by_apt", lambda work: None)
    return folder


def raw(folder):
    return folder / "FashionMNIST" / "raw"


def test_the_debian_folder_is_unpacked_once_and_torchvision_reads_it(packed, tmp_path):
    ensure_fashion_mnist(tmp_path / "data")
    source = import_torchvision_datasets().FashionMNIST
    assert source(tmp_path / "data", train=True).data.shape == (5, 28, 28)
    assert source(tmp_path / "data", train=False).targets.tolist() == [0, 1, 2, 3, 4]
    for file in packed.iterdir():
        file.unlink()
    ensure_fashion_mnist(tmp_path / "data")  # no source is needed any more
    assert sorted(f.name for f in (tmp_path / "data").iterdir()) == ["FashionMNIST"]


def test_a_damaged_packed_file_is_named_and_nothing_of_it_is_used(packed, tmp_path):
    file = packed / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match="train-images-idx3-ubyte.gz is damaged .*: delete it and run again$"):
        ensure_fashion_mnist(tmp_path / "data")
    assert not list(raw(tmp_path / "data").iterdir())


def test_another_file_under_the_right_name_is_named(packed, tmp_path):
    (packed / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte.gz is damaged .*wrong checksum"):
        ensure_fashion_mnist(tmp_path / "data")


def test_a_partial_unpacked_file_is_named_and_kept(packed, tmp_path):
    ensure_fashion_mnist(tmp_path / "data")
    file = raw(tmp_path / "data") / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte is damaged \(100 bytes, wrong checksum\): delete"):
        ensure_fashion_mnist(tmp_path / "data")
    assert file.stat().st_size == 100


def test_without_any_source_the_error_says_what_to_do(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "DEBIAN_FOLDER", tmp_path / "nowhere")
    with pytest.raises(OSError, match="connect this machine, put the four .gz files into .*make run DATASET=digits"):
        ensure_fashion_mnist(tmp_path / "data")


def test_packed_files_put_there_by_hand_are_used(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "DEBIAN_FOLDER", tmp_path / "nowhere")
    raw(tmp_path / "data").mkdir(parents=True)
    for file in packed.iterdir():
        file.rename(raw(tmp_path / "data") / file.name)
    ensure_fashion_mnist(tmp_path / "data")


def test_apt_that_cannot_reach_its_mirror_is_no_source(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # which has no apt-get
    assert download._download_by_apt(tmp_path) is None


def test_torchvision_imports_beside_this_torch():
    code = (
        "from neuronsplit.data.download import import_torchvision_datasets as f; f();"
        "import torch, torchvision.models as m; print(tuple(m.resnet18().eval()(torch.rand(1, 3, 32, 32)).shape))"
    )
    assert subprocess.check_output([sys.executable, "-W", "ignore", "-c", code], text=True).strip() == "(1, 1000)"
