"""Fetching: whole, resumed, refused; from a server of our own on this machine."""

from __future__ import annotations

import fcntl
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from raycl.config.sources.catalogue import entry_of
from raycl.config.sources.entry import Download, Entry
from raycl.errors import DataError
from raycl.observe.events import Event, Progress
from raycl.streams.sources.fetching import fetch, unpack


class Server:
    """Files by path, perhaps cut off after some bytes, and what was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut_after: int | None = None
        self.ranges = True
        self.asked: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.headers.get("Range"))
                data = server.files.get(self.path)
                if data is None:
                    self.send_error(404)
                    return
                first = 0
                asked = self.headers.get("Range")
                if asked and server.ranges:
                    first = int(asked.removeprefix("bytes=").removesuffix("-"))
                    if first >= len(data):
                        self.send_error(416)
                        return
                self.send_response(206 if first else 200)
                self.send_header("Content-Length", str(len(data) - first))
                self.end_headers()
                end = len(data) if server.cut_after is None else first + server.cut_after
                self.wfile.write(data[first:end])

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http.server_port}{path}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def tarred(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def entry(server: Server, data: bytes, *, md5: str | None = None, **options: Any) -> Entry:
    server.files["/set.tar.gz"] = data
    download = Download(
        url=server.url("/set.tar.gz"),
        file="set.tar.gz",
        md5=md5 or hashlib.md5(data).hexdigest(),
        **options,
    )
    return entry_of("dtd").model_copy(update={"downloads": (download,)})


SET = {"dtd/images/a.jpg": b"a" * 5000, "dtd/labels.txt": b"x"}


def test_it_is_fetched_checked_and_laid_out(server: Server, tmp_path: Path) -> None:
    told: list[Event] = []
    place = fetch(entry(server, tarred(SET), top="dtd"), tmp_path, told.append)
    assert place == tmp_path / "dtd"
    assert (place / "images" / "a.jpg").read_bytes() == SET["dtd/images/a.jpg"]
    assert (place / "labels.txt").exists() and not (tmp_path / "downloads" / "dtd").exists()
    assert any(isinstance(event, Progress) for event in told)


def test_a_broken_connection_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    import random

    data = tarred({"dtd/images/a.jpg": random.Random(0).randbytes(200_000)})
    wanted = entry(server, data, top="dtd")
    server.cut_after = 60_000
    with pytest.raises(DataError, match="60000 of") as caught:
        fetch(wanted, tmp_path)
    assert "run the same command again to go on" in str(caught.value)
    server.cut_after = None
    fetch(wanted, tmp_path)
    assert server.asked == [None, "bytes=60000-"]
    assert (tmp_path / "dtd" / "images" / "a.jpg").stat().st_size == 200_000


def test_a_server_that_cannot_go_on_begins_again(server: Server, tmp_path: Path) -> None:
    wanted = entry(server, tarred(SET), top="dtd")
    part = tmp_path / "downloads" / "dtd" / "set.tar.gz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"something else")
    server.ranges = False
    fetch(wanted, tmp_path)
    assert (tmp_path / "dtd" / "labels.txt").exists()


def test_a_part_that_was_whole_already_is_taken(server: Server, tmp_path: Path) -> None:
    data = tarred(SET)
    wanted = entry(server, data, top="dtd")
    part = tmp_path / "downloads" / "dtd" / "set.tar.gz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(data)
    fetch(wanted, tmp_path)
    assert (tmp_path / "dtd" / "labels.txt").exists()


def test_another_checksum_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    wanted = entry(server, tarred(SET), md5="0" * 32, top="dtd")
    with pytest.raises(DataError, match="not what its authors published"):
        fetch(wanted, tmp_path)
    assert not list((tmp_path / "downloads" / "dtd").glob("*.gz*"))
    assert not (tmp_path / "dtd").exists()


def test_an_archive_placed_by_hand_needs_no_network(server: Server, tmp_path: Path) -> None:
    data = tarred(SET)
    wanted = entry(server, data, top="dtd")
    server.files.clear()
    with pytest.raises(DataError, match="place the file at") as caught:
        fetch(wanted, tmp_path)
    assert "404" in str(caught.value)
    (tmp_path / "downloads" / "dtd" / "set.tar.gz").write_bytes(data)
    fetch(wanted, tmp_path)
    assert (tmp_path / "dtd" / "labels.txt").exists()


def test_what_a_person_placed_is_left_alone(server: Server, tmp_path: Path) -> None:
    (tmp_path / "dtd").mkdir()
    (tmp_path / "dtd" / "labels.txt").write_bytes(b"mine")
    fetch(entry(server, tarred(SET), top="dtd"), tmp_path)
    assert (tmp_path / "dtd" / "labels.txt").read_bytes() == b"mine"
    assert (tmp_path / "dtd" / "images" / "a.jpg").exists()


def test_archives_within_archives_are_unpacked(server: Server, tmp_path: Path) -> None:
    inner = tarred({"images/a.jpg": b"a"})
    wanted = entry(server, tarred({"dtd/in.tar.gz": inner}), top="dtd", inner=("in.tar.gz",))
    fetch(wanted, tmp_path)
    assert [p.name for p in (tmp_path / "dtd").iterdir()] == ["images"]


def test_two_at_once_are_refused(server: Server, tmp_path: Path) -> None:
    lock = tmp_path / "downloads" / "dtd" / ".lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process is fetching"):
            fetch(entry(server, tarred(SET), top="dtd"), tmp_path)


def test_archives_that_climb_out_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.tar.gz").write_bytes(tarred({"../out.txt": b"x"}))
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as packed:
        packed.writestr("../out.txt", "x")
    for name in ("bad.tar.gz", "bad.zip"):
        with pytest.raises(DataError, match="would write outside of its folder"):
            unpack(tmp_path / name, tmp_path / "into")
    assert not (tmp_path / "out.txt").exists()
    (tmp_path / "page.tar.gz").write_text("<html>")
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(tmp_path / "page.tar.gz", tmp_path / "into")


def test_nobody_is_asked_for_a_file_of_this_machine(tmp_path: Path) -> None:
    download = Download(url="file:///etc/hostname", file="x")
    with pytest.raises(DataError, match="only http and https are fetched"):
        fetch(entry_of("dtd").model_copy(update={"downloads": (download,)}), tmp_path)
