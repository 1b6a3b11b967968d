import contextlib
import gzip
import hashlib
import os
import runpy
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pooch
import pytest
import requests

from neuronsplit.data import download
from neuronsplit.data.download import FASHION_MNIST_SHA256, ensure_fashion_mnist, import_torchvision_datasets
from neuronsplit.locations import ROOT

FIRST = "train-images-idx3-ubyte"


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """Four small .gz files in the published format, their checksums in place of the real ones, and no other source."""
    folder = tmp_path / "packed"
    folder.mkdir()
    checksums, md5s = {}, []
    for name in FASHION_MNIST_SHA256:
        shape = (5, 28, 28) if "images" in name else (5,)
        size = 5 * 784 if "images" in name else 5
        content = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + bytes(i % 10 for i in range(size))
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        checksums[name] = hashlib.sha256(content).hexdigest()
        md5s.append((f"{name}.gz", hashlib.md5((folder / f"{name}.gz").read_bytes()).hexdigest()))
    monkeypatch.setattr(download, "FASHION_MNIST_SHA256", checksums)
    monkeypatch.setattr(download, "DEBIAN_FOLDER", folder)
    monkeypatch.setattr(download, "_download_by_apt", lambda work: None)
    monkeypatch.setattr(import_torchvision_datasets().FashionMNIST, "mirrors", [])
    monkeypatch.setattr(import_torchvision_datasets().FashionMNIST, "resources", md5s)
    return folder


def raw(folder):
    return folder / "FashionMNIST" / "raw"


def content(folder):
    """All files below a folder that has the data, by their names."""
    return {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def unpacked(packed):
    """What a whole folder of the data holds, unpacked in another way."""
    return {file.stem: gzip.decompress(file.read_bytes()) for file in packed.glob("*.gz")}


def test_the_debian_folder_is_unpacked_once_and_torchvision_reads_it(packed, tmp_path, capsys, caplog):
    pooch.get_logger().setLevel("INFO")
    pooch.get_logger().addHandler(caplog.handler)
    ensure_fashion_mnist(tmp_path / "data")
    pooch.get_logger().removeHandler(caplog.handler)
    assert capsys.readouterr() == ("", f"Fetching Fashion-MNIST (30 MB) from {packed}\n") and caplog.records == []
    source = import_torchvision_datasets().FashionMNIST
    assert source(tmp_path / "data", train=True).data.shape == (5, 28, 28)
    assert source(tmp_path / "data", train=False).targets.tolist() == [0, 1, 2, 3, 4]
    assert content(tmp_path / "data") == unpacked(packed)
    for file in packed.iterdir():
        file.unlink()
    ensure_fashion_mnist(tmp_path / "data")  # no source is needed any more
    assert capsys.readouterr() == ("", "")
    assert sorted(f.name for f in (tmp_path / "data").iterdir()) == ["FashionMNIST"]


def test_others_may_read_the_files_as_the_umask_says(packed, tmp_path):
    before = os.umask(0o027)
    try:
        ensure_fashion_mnist(tmp_path / "data")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in raw(tmp_path / "data").iterdir()} == {0o640}


DAMAGES = {
    "cut": lambda whole: whole[:-20],
    "without its end": lambda whole: whole[:-4],
    "with bytes changed": lambda whole: whole[:30] + bytes(20) + whole[50:],
    "a page": lambda whole: b"<html>Log in</html>",
    "empty": lambda whole: b"",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_packed_file_is_named_and_kept_and_nothing_of_it_is_used(packed, tmp_path, damage):
    file = packed / f"{FIRST}.gz"
    damaged = damage(file.read_bytes())
    file.write_bytes(damaged)
    with pytest.raises(ValueError, match=rf"^{file} is damaged \({len(damaged)} bytes, .*\): delete it and run again$"):
        ensure_fashion_mnist(tmp_path / "data")
    assert not content(tmp_path / "data") and file.read_bytes() == damaged


def test_another_file_under_the_right_name_is_named(packed, tmp_path):
    (packed / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(ValueError, match="^[^\n]*t10k-labels-idx1-ubyte.gz is damaged [^\n]*wrong checksum[^\n]*$"):
        ensure_fashion_mnist(tmp_path / "data")
    assert content(tmp_path / "data").keys() == FASHION_MNIST_SHA256.keys() - {"t10k-labels-idx1-ubyte"}


def test_a_partial_unpacked_file_is_named_and_kept(packed, tmp_path):
    ensure_fashion_mnist(tmp_path / "data")
    file = raw(tmp_path / "data") / FIRST
    file.write_bytes(file.read_bytes()[:100])
    line = rf"^{file} is damaged \(100 bytes, wrong checksum\): delete it and run again$"
    with pytest.raises(ValueError, match=line):
        ensure_fashion_mnist(tmp_path / "data")
    assert content(tmp_path / "data") == unpacked(packed) | {FIRST: unpacked(packed)[FIRST][:100]}


def test_what_is_damaged_is_not_covered_up_by_what_is_missing(packed, tmp_path):
    ensure_fashion_mnist(tmp_path / "data")
    (raw(tmp_path / "data") / "t10k-labels-idx1-ubyte").unlink()
    file = raw(tmp_path / "data") / FIRST
    file.write_bytes(b"mine")
    with pytest.raises(ValueError, match=rf"^{file} is damaged \(4 bytes"):
        ensure_fashion_mnist(tmp_path / "data")
    assert file.read_bytes() == b"mine"


def test_without_any_source_the_error_says_what_to_do(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "DEBIAN_FOLDER", tmp_path / "nowhere")
    line = rf"^Fashion-MNIST could not .*: connect .*, put the four .gz files into {raw(tmp_path)}, .*DATASET=digits$"
    with pytest.raises(OSError, match=line) as caught:
        ensure_fashion_mnist(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("files", [4, 1], ids=["all", "the only one that is missing"])
def test_packed_files_put_there_by_hand_are_used_and_kept(packed, tmp_path, monkeypatch, files):
    expected = unpacked(packed)
    ensure_fashion_mnist(tmp_path / "data")
    monkeypatch.setattr(download, "DEBIAN_FOLDER", tmp_path / "nowhere")
    by_hand = {}
    for file in sorted(packed.iterdir())[:files]:
        (raw(tmp_path / "data") / file.stem).unlink()
        by_hand[file.name] = file.read_bytes()
        file.rename(raw(tmp_path / "data") / file.name)
    ensure_fashion_mnist(tmp_path / "data")
    assert content(tmp_path / "data") == expected | by_hand


@contextlib.contextmanager
def served(folder):
    """The address of a web server that has the files of a folder."""
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_the_first_mirror_that_has_the_files_is_used(packed, tmp_path, monkeypatch, capsys):
    """The first refuses, the second never answers, the third has no such file, the fourth sends a page instead."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(download, "DEBIAN_FOLDER", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "pages").mkdir()
    for file in packed.iterdir():
        (tmp_path / "pages" / file.name).write_text("<html>Log in</html>")
    get = requests.get

    def get_but_for_one(url, timeout, **kwargs):
        assert timeout <= 10
        if url.startswith("http://silent"):
            raise requests.ConnectTimeout
        return get(url, timeout=timeout, **kwargs)

    monkeypatch.setattr(requests, "get", get_but_for_one)
    with served(tmp_path / "empty") as empty, served(tmp_path / "pages") as pages, served(packed) as whole:
        mirrors = ["http://127.0.0.1:9/", "http://silent/", empty, pages, whole, "http://not-asked/"]
        monkeypatch.setattr(import_torchvision_datasets().FashionMNIST, "mirrors", mirrors)
        ensure_fashion_mnist(tmp_path / "data")
        err = capsys.readouterr().err.splitlines()
        assert [line for line in err if line.startswith("Fetching")] == [
            f"Fetching Fashion-MNIST (30 MB) from {mirror}" for mirror in mirrors[:-1]
        ]
        assert content(tmp_path / "data") == unpacked(packed)
        monkeypatch.setattr(import_torchvision_datasets().FashionMNIST, "mirrors", mirrors[:-2])
        with pytest.raises(OSError, match="^Fashion-MNIST could not be downloaded"):
            ensure_fashion_mnist(tmp_path / "other")


def unpack_half(packed, folder, monkeypatch, error):
    """Let the fetching break with an error when half of a file is written."""

    def unpack(url, target, _):
        Path(target).write_bytes(unpacked(packed)[Path(url).name][:1000])
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(download, "_unpack", unpack)
        with pytest.raises(type(error)):
            ensure_fashion_mnist(folder)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=repr)
def test_fetching_that_breaks_leaves_nothing_behind(packed, tmp_path, monkeypatch, error):
    unpack_half(packed, tmp_path / "data", monkeypatch, error)
    assert not content(tmp_path / "data")
    ensure_fashion_mnist(tmp_path / "data")
    assert content(tmp_path / "data") == unpacked(packed)


def test_fetching_that_is_killed_leaves_nothing_that_counts_as_whole(packed, tmp_path):
    """The first packed file is a pipe, so that the killed process has read half of it and no more."""
    folder = tmp_path / "data"
    raw(folder).mkdir(parents=True)
    for file in packed.iterdir():
        (raw(folder) / file.name).write_bytes(file.read_bytes())
    pipe = raw(folder) / f"{FIRST}.gz"
    pipe.unlink()
    os.mkfifo(pipe)
    code = f"from neuronsplit.data import download as d; d.ensure_fashion_mnist(d.Path({str(folder)!r}))"
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code])
    with open(pipe, "wb") as feed:  # this waits for the other process to open it
        feed.write(gzip.compress(os.urandom(10**6))[:500_000])
        feed.flush()
        deadline = time.monotonic() + 60
        while not any(file.stat().st_size for file in raw(folder).glob("tmp*")):
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGKILL)
        process.wait()
        with contextlib.suppress(BrokenPipeError):
            feed.close()
    assert not FASHION_MNIST_SHA256.keys() & content(folder).keys()
    pipe.unlink()
    (packed / pipe.name).rename(pipe)
    ensure_fashion_mnist(folder)
    assert FASHION_MNIST_SHA256.keys() <= content(folder).keys()


def test_two_that_fetch_at_once_both_end_well(packed, tmp_path, monkeypatch):
    """They meet in the middle of each file, and write it side by side."""
    meeting = threading.Barrier(2, timeout=60)

    def unpack(url, target, _):
        whole = unpacked(packed)[Path(url).name]
        with open(target, "wb") as file:
            file.write(whole[:3])
            file.flush()
            meeting.wait()
            file.write(whole[3:])

    monkeypatch.setattr(download, "_unpack", unpack)
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(ensure_fashion_mnist, tmp_path / "data") for _ in range(2)]:
            future.result()
    assert content(tmp_path / "data") == unpacked(packed)


def fake_commands(folder, monkeypatch, **scripts):
    for name, script in scripts.items():
        file = folder / name.replace("_", "-")
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_the_package_is_fetched_by_apt_with_lists_of_its_own(packed, tmp_path, monkeypatch):
    monkeypatch.undo()  # only the packed files are needed here
    work = tmp_path / "a folder {with} 'signs'"
    work.mkdir()
    apt = 'for option in "$@"; do echo "$option"; done >> log; case "$*" in *download*) touch p.deb; esac'
    dpkg = f'[ "$*" = "-x p.deb ." ] && mkdir -p usr/share/datasets && cp -r {packed} usr/share/datasets/fashion-mnist'
    fake_commands(tmp_path, monkeypatch, apt_get=apt, dpkg_deb=dpkg)
    assert content(download._download_by_apt(work)) == content(packed)
    options = ["-qq", f"-oDir::State::Lists={work}/lists", f"-oDir::Cache={work}", "-oAcquire::http::Timeout=10"]
    called = [*options, "update", *options, "download", "dataset-fashion-mnist"]
    assert (work / "log").read_text().splitlines() == called and (work / "lists" / "partial").is_dir()


@pytest.mark.parametrize("script", ["exit 100", 'case "$*" in *download*) exit 100; esac'])
def test_apt_that_cannot_reach_its_mirror_is_no_source(tmp_path, monkeypatch, capfd, script):
    fake_commands(tmp_path, monkeypatch, apt_get=script)
    assert download._download_by_apt(tmp_path) is None
    source = "the distribution's mirror, by apt-get, which installs nothing"
    assert capfd.readouterr() == ("", f"Fetching Fashion-MNIST (30 MB) from {source}\n")


@pytest.mark.parametrize(
    "value, expected",
    [
        (None, ROOT / "data"),
        ("", ROOT / "data"),
        ("mine", Path("mine")),
        ("/a b/{c}", Path("/a b/{c}")),
        ("~/d", Path.home() / "d"),
    ],
)
def test_the_folder_of_the_data_is_the_users_or_that_of_the_project(monkeypatch, value, expected):
    monkeypatch.delenv("NEURONSPLIT_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("NEURONSPLIT_DATA", value)
    assert runpy.run_path(download.__file__)["FOLDER"] == expected


def test_torchvision_imports_with_this_torch():
    code = (
        "from neuronsplit.data.download import import_torchvision_datasets as f; f();"
        "import torch, torchvision.models as m; print(tuple(m.resnet18().eval()(torch.rand(1, 3, 32, 32)).shape))"
    )
    assert subprocess.check_output([sys.executable, "-W", "ignore", "-c", code], text=True).strip() == "(1, 1000)"
