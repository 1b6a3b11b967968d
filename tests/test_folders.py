import subprocess
import sys

import pytest
from test_crash_recovery import start, tables

from neuronsplit.study.cli import main
from neuronsplit.study.folders import at_hand, place


def test_a_folder_is_itself(tmp_path):
    with at_hand(place(str(tmp_path))) as folder:
        assert folder == tmp_path


def test_an_address_is_copied_and_what_has_changed_is_stored(tmp_path):
    (tmp_path / "pieces").mkdir()
    for name in ("kept.csv", "changed.csv", "gone.csv", "pieces/other.csv"):
        (tmp_path / name).write_text("old")
    written = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    with at_hand(f"file://{tmp_path}", lambda name: "/" not in name) as folder:
        assert sorted(file.name for file in folder.rglob("*")) == ["changed.csv", "gone.csv", "kept.csv"]
        (folder / "changed.csv").write_text("new")
        (folder / "gone.csv").unlink()
        (folder / "deep").mkdir()
        (folder / "deep" / "new.json").write_text("{}")
        (folder / "unfinished.part").write_text("half")
    names = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file())
    assert names == ["changed.csv", "deep/new.json", "kept.csv", "pieces/other.csv"]
    assert (tmp_path / "changed.csv").read_text() == "new"
    assert (tmp_path / "kept.csv").stat().st_mtime_ns == written["kept.csv"]


def test_what_was_made_before_an_error_is_stored(tmp_path):
    with pytest.raises(KeyError), at_hand(f"file://{tmp_path}/new") as folder:
        (folder / "made.csv").write_text("whole")
        raise KeyError
    assert (tmp_path / "new" / "made.csv").read_text() == "whole"


def test_json_files_are_stored_last(tmp_path, monkeypatch):
    from fsspec.implementations.local import LocalFileSystem

    stored, put = [], LocalFileSystem.put_file
    monkeypatch.setattr(LocalFileSystem, "put_file", lambda self, *names: stored.append(names[0]) or put(self, *names))
    with at_hand(f"file://{tmp_path}/new") as folder:
        for name in ("a.json", "a.csv", "b.json", "b.csv"):
            (folder / name).write_text(name)
    assert [name.endswith(".json") for name in stored] == [False, False, True, True]


@pytest.mark.parametrize("address", ["s3://", "file:///", "://x", "memory://x"])
def test_an_address_of_nothing_is_refused(address, sweep, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["run", str(sweep), "--folder", address])
    assert f"{address}: allowed are folders and addresses such as s3://" in capsys.readouterr().err


def test_what_only_stands_for_a_folder_is_passed_over(tmp_path, monkeypatch):
    """S3's console makes empty objects with names that end with a slash."""
    from fsspec.implementations.local import LocalFileSystem

    (tmp_path / "a.csv").write_text("whole")
    find = LocalFileSystem.find
    marked = lambda self, root: [f"{root}/", f"{root}/pieces/", f"{root}/gone.csv", *find(self, root)]  # noqa: E731
    monkeypatch.setattr(LocalFileSystem, "find", marked)
    with at_hand(f"file://{tmp_path}") as folder:
        assert [file.name for file in folder.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("address", ["nowhere://bucket/study", "https://127.0.0.1:9/study", "file:///dev/null/study"])
def test_an_address_that_cannot_be_reached_is_one_line_and_exit_code_2(address, sweep, capsys):
    assert main(["run", str(sweep), "--folder", address]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"neuronsplit: {address}") and error.count("\n") == 1


@pytest.mark.long
def test_a_study_at_an_address_has_the_same_bytes_and_goes_on_where_it_was(sweep, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    assert start(sweep, here).wait() == 0
    assert start(sweep, f"file://{there}").wait() == 0
    assert tables(there) == tables(here) and len(tables(there)) == 7
    assert {"index.html", "report.html", "table.csv", "figures"} <= {file.name for file in there.iterdir()}
    lost = next(there.glob("min-fire-*.json"))
    lost.unlink()
    command = [sys.executable, "-m", "neuronsplit", "status", str(sweep), "--folder", f"file://{there}"]
    assert "6 done, 0 running, 0 failed, 0 damaged, 1 missing" in subprocess.check_output(command, text=True)
    kept = {file.name: file.stat().st_mtime_ns for file in there.glob("*-????????.csv")}
    assert start(sweep, f"file://{there}").wait() == 0
    assert tables(there) == tables(here)
    now = {file.name: file.stat().st_mtime_ns for file in there.glob("*-????????.csv")}
    assert {name for name in kept if kept[name] != now[name]} <= {f"{lost.stem}.csv"}


@pytest.mark.long
def test_a_study_on_s3(sweep, tmp_path, monkeypatch):
    """Against moto's server, where that and s3fs are installed."""
    server = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    s3 = server.ThreadedMotoServer(port=0)
    s3.start()
    host, port = s3.get_host_and_port()
    for name, value in {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    try:
        store = s3fs.S3FileSystem()
        store.mkdir("bucket")
        assert start(sweep, tmp_path / "here").wait() == 0
        assert start(sweep, "s3://bucket/study").wait() == 0
        store.invalidate_cache()
        store.get("bucket/study", str(tmp_path / "there"), recursive=True)
        assert tables(tmp_path / "there") == tables(tmp_path / "here")
    finally:
        s3.stop()
