"""Where a store can live, and what is said where it cannot."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_specs import paths, spec

from raycl.errors import DiskFullError, StoreError
from raycl.store import Store

BUCKET = "raycl-tests"


def refused(uri: str) -> StoreError:
    with pytest.raises(StoreError) as caught:
        Store.open(uri)
    assert caught.value.do and caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}"])
def test_a_local_store_is_created_with_its_parents(tmp_path: Path, form: str) -> None:
    root = tmp_path / "a b" / "store"
    store = Store.open(form.format(root))
    assert store.uri == str(root) == str(store.location.local_root)
    store.put(spec(), {"a.json": 1})
    assert Store.open(store.uri).get(spec()) == {"a.json": 1}


def test_a_relative_address_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Store.open("runs").uri == str(tmp_path / "runs")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Store.open("~/runs").uri == str(tmp_path / "home" / "runs")


def test_a_file_where_the_folder_should_be_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for root in (file, file / "store"):
        assert "a file stands where" in str(refused(str(root)))
    assert file.read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_an_error() -> None:
    assert "/proc/raycl" in str(refused("/proc/raycl"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "writable" in str(refused(str(tmp_path)))
    assert "writable" in str(refused(str(tmp_path / "store")))
    tmp_path.chmod(0o700)


def test_a_file_where_an_artefact_goes_is_an_error(local: Store) -> None:
    Path(local.uri, "artefacts").write_text("in the way")
    with pytest.raises(StoreError, match="a file stands where"):
        local.put(spec(), {"a.json": 1})


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s4://bucket/x", "did you mean s3://"),
        ("https://host/x", "s3://bucket/folder"),
        ("s3:/bucket/x", "two slashes"),
        ("s3:///x", "names a bucket"),
        ("file://host/x", "file:///host"),
        ("", "name a folder"),
        ("a\0b", "name a folder"),
        ("s3://bucket/x?endpoint_overide=h", "did you mean 'endpoint_override'"),
        ("s3://bucket/x?color=red", "no such option"),
    ],
)
def test_a_wrong_address_is_told_what_would_be_right(
    uri: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in str(refused(uri))
    assert list(tmp_path.iterdir()) == []


def test_credentials_in_an_address_are_refused_and_not_shown() -> None:
    error = refused("s3://AKIAKEY:hunter2@bucket/x")
    assert "AWS_ACCESS_KEY_ID" in str(error)
    assert "hunter2" not in str(error) and "AKIAKEY" not in str(error)


def test_a_bucket_that_is_not_there_is_an_error(s3_address: str) -> None:
    error = refused(f"s3://no-such-bucket/x?endpoint_override={s3_address}&scheme=http")
    assert error.got == "no-such-bucket"


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_an_endpoint_where_nobody_answers_is_an_error(
    scheme: str, s3_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raycl.store.bucket.CONNECT_SECONDS", 0.4)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    query = f"endpoint_override=127.0.0.1:{port}&scheme=http&anonymous=true"
    assert "nobody answers" in str(refused(f"{scheme}://bucket/x?{query}"))


def test_a_bucket_that_goes_away_is_an_error_at_the_next_use(s3_address: str) -> None:
    from pyarrow.fs import S3FileSystem

    s3 = S3FileSystem(
        endpoint_override=s3_address,
        scheme="http",
        allow_bucket_creation=True,
        allow_bucket_deletion=True,
    )
    s3.create_dir("short-lived")
    store = Store.open(f"s3://short-lived/x?endpoint_override={s3_address}&scheme=http")
    s3.delete_dir("short-lived")
    with pytest.raises(StoreError, match="create the bucket"):
        store.put(spec(), {"a.json": 1})


@pytest.mark.parametrize("path", ["", "/", "/a//b/", "/with%20space"])
def test_any_folder_of_a_bucket_can_be_a_root(s3_address: str, path: str) -> None:
    uri = f"s3://{BUCKET}{path}?endpoint_override={s3_address}&scheme=http"
    store = Store.open(uri)
    store.put(spec("root"), {"a.json": path})
    assert Store.open(store.uri).get(spec("root")) == {"a.json": path}
    store.discard(spec("root"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run(mount, capture_output=True).returncode == 0:
            yield disk
            subprocess.run(["umount", str(disk)], check=True)
            return
    pytest.skip("a tmpfs cannot be mounted here")


def test_a_full_disk_is_told_and_keeps_what_was_finished(small_disk: Path) -> None:
    store = Store.open(str(small_disk / "store"))
    store.put(spec("first"), {"a.bin": bytes(100_000)})
    before = paths(store, "")
    for attempt in range(3):
        with pytest.raises(DiskFullError) as caught:
            store.get_or_make(
                spec("big"), lambda: {"a.bin": bytes(100_000), "b.bin": bytes(500_000)}
            )
        assert "raycl store gc" in str(caught.value), attempt
    assert caught.value.exit_code == 1
    assert paths(store, "") == before
    assert store.get(spec("first")) == {"a.bin": bytes(100_000)}
    store.put(spec("second"), {"a.bin": bytes(100_000)})
    assert store.has(spec("second"))
