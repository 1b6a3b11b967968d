"""MNIST-1D, as the package mnist1d makes it."""

import os
import random
import shutil
import stat

import mnist1d.data
import numpy as np
import pytest
import torch

from neuronsplit.data import datasets, download, mnist_1d
from neuronsplit.data.mnist_1d import ensure_mnist_1d


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the data have been made."""
    folder = tmp_path_factory.mktemp("data")
    ensure_mnist_1d(folder)
    return folder


@pytest.fixture
def copied(folder, tmp_path, monkeypatch):
    """A copy of the file, in a folder where none can be made."""
    monkeypatch.setattr(mnist_1d, "_make", lambda *_: pytest.fail("the data were made again"))
    return shutil.copy(folder / "mnist-1d.npy", tmp_path)


def test_it_is_what_the_package_makes_and_the_global_streams_stay_as_they_are(tmp_path):
    np.random.seed(7)
    random.seed(7)
    rows = ensure_mnist_1d(tmp_path)
    drawn = np.random.random(3).tolist(), random.random()
    np.random.seed(7)
    random.seed(7)
    assert drawn == (np.random.random(3).tolist(), random.random())
    made = mnist1d.data.make_dataset()
    assert rows.shape == (5000, 41) and rows.dtype == np.float32
    for part, name in ((rows[:4000], ""), (rows[4000:], "_test")):
        np.testing.assert_array_equal(part[:, :-1], made[f"x{name}"].astype(np.float32))
        np.testing.assert_array_equal(part[:, -1], made[f"y{name}"])


@pytest.mark.long
def test_others_may_read_the_file_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        ensure_mnist_1d(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "mnist-1d.npy").stat().st_mode) == 0o640


def test_what_was_made_once_is_read(copied, tmp_path):
    assert ensure_mnist_1d(tmp_path).shape == (5000, 41)


@pytest.mark.long
def test_a_damaged_file_is_made_again(folder, tmp_path):
    whole = (folder / "mnist-1d.npy").read_bytes()
    (tmp_path / "mnist-1d.npy").write_bytes(whole[:-100])
    ensure_mnist_1d(tmp_path)
    assert (tmp_path / "mnist-1d.npy").read_bytes() == whole


def test_other_data_than_the_published_ones_are_refused_and_not_kept(tmp_path, monkeypatch):
    made = mnist1d.data.make_dataset()
    made["x"][0, 0] += 1e-3
    monkeypatch.setattr(mnist1d.data, "make_dataset", lambda: made)
    message = r"^mnist1d [\d.a-z]+ makes other data than were published: allowed is 0.0.2.post1$"
    with pytest.raises(ValueError, match=message):
        ensure_mnist_1d(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_data_set_is_three_parts_on_one_scale(copied, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "FOLDER", tmp_path)
    data = datasets.mnist_1d()
    assert [tuple(subset.images.shape) for subset in data[:3]] == [(3000, 40), (1000, 40), (1000, 40)]
    images, labels = (torch.cat(tensors) for tensors in zip(*data[:3]))
    assert abs(images.mean()) < 1e-6 and images.std(correction=0).item() == pytest.approx(1)
    assert labels.bincount().tolist() == [500] * 10 and data.shape == (1, 40)
