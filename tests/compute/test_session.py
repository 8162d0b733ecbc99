"""Connecting: what is refused quickly, and with which words; what just works."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raycl.errors import ClusterError
from tests.compute.ports import free_port
from tests.compute.workers import DEADLINE_SECONDS

ROOT = Path(__file__).parents[2]
TOKEN = "c" * 32
PLAIN = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}

pytestmark = pytest.mark.ray


def connecting(*args: str, cwd: Path, **environment: str) -> dict[str, Any]:
    """What a fresh process says about connecting."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.compute.connecting", *args],
        cwd=cwd,
        env={**PLAIN, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def guarded_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real head that wants a token, as another user would have started it."""
    # Short, because Unix sockets below it have a limit of about a hundred characters.
    folder = Path(tempfile.mkdtemp(prefix="raycl-"))
    home = tmp_path_factory.mktemp("home")
    port = free_port()
    command = [
        *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"),
        *(f"--port={port}", f"--temp-dir={folder}", "--num-cpus=1"),
        *("--include-dashboard=false", "--disable-usage-stats"),
        *("--object-store-memory=100000000", f"--ray-client-server-port={free_port()}"),
        *("--min-worker-port=0", "--max-worker-port=0"),
    ]
    output = home / "output"
    environment = {**PLAIN, "HOME": str(home), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    with output.open("w") as sink:
        head = subprocess.Popen(command, env=environment, stdout=sink, stderr=sink)
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while "Ray runtime started" not in output.read_text():
            if head.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"no Ray head came up: {output.read_text()[-2000:]}")
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        head.terminate()
        head.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_dead_address_is_refused_with_advice(tmp_path: Path) -> None:
    told = connecting(f"127.0.0.1:{free_port()}", cwd=tmp_path)
    assert told["error"] == "ClusterError"
    assert "nothing answers at 127.0.0.1:" in told["text"]
    assert "leave it out to use a local Ray" in told["text"]


def test_another_server_is_not_taken_for_ray(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        told = connecting(f"127.0.0.1:{server.getsockname()[1]}", cwd=tmp_path)
        thread.join()
    assert told["error"] == "ClusterError"
    assert "not a Ray cluster" in told["text"]


@pytest.mark.parametrize("address", ["nonsense", "ray://somewhere:10001", ":6379", "host:"])
def test_what_is_not_an_address(address: str) -> None:
    from raycl.compute.ray_session import resolve_address
    from raycl.errors import ConfigError

    with pytest.raises(ConfigError, match="host:port"):
        resolve_address(address)


def test_a_ray_that_takes_too_long_to_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from raycl.compute import ray_session

    def busy(**options: Any) -> None:
        raise Exception("The current node timed out during startup.")  # as Ray does

    monkeypatch.setattr(ray, "init", busy)
    with pytest.raises(ClusterError, match=r"could not start a local Ray: .* timed out") as told:
        ray_session._init(None, {})
    assert "how busy it is" in str(told.value)


@pytest.mark.parametrize("given", [{}, {"RAY_AUTH_MODE": "disabled"}])
def test_a_missing_token_is_named(guarded_head: str, tmp_path: Path, given: dict[str, str]) -> None:
    told = connecting(guarded_head, cwd=tmp_path, HOME=str(tmp_path), **given)
    assert told["error"] == "ClusterError"
    assert "no token" in told["text"]
    assert "RAY_AUTH_TOKEN" in told["text"]
    assert "RAY_AUTH_MODE=token" in told["text"]


def test_a_wrong_token_is_named_and_not_shown(guarded_head: str, tmp_path: Path) -> None:
    told = connecting(guarded_head, "d" * 32, cwd=tmp_path, HOME=str(tmp_path))
    assert told["error"] == "ClusterError"
    assert "wrong token" in told["text"]
    assert "d" * 32 not in told["text"]
    assert told["auth_left_behind"] == []


def test_the_right_token_opens(guarded_head: str, tmp_path: Path) -> None:
    told = connecting(
        "auto",
        cwd=tmp_path,
        HOME=str(tmp_path),
        RAY_ADDRESS=guarded_head,
        RAY_AUTH_TOKEN=TOKEN,
    )
    assert told["values"] == [42]
    assert told["local"] is False


def test_without_an_address_nobody_is_joined(guarded_head: str, tmp_path: Path) -> None:
    """Also from an unwritable home, another folder, and with a cluster in the environment."""
    told = connecting("local", cwd=tmp_path, HOME="/proc/nowhere", RAY_ADDRESS=guarded_head)
    assert told == {"values": [42], "local": True, "auth_left_behind": []}


def test_a_connected_process_keeps_its_connection(ray_session: Any) -> None:
    import ray

    from raycl.compute.ray_session import connect

    port = ray_session.address.rpartition(":")[2]
    for asked in (None, ray_session.address, f"127.0.0.1:{port}"):
        with connect(asked) as again:
            assert not again.owns
            assert again.address == ray_session.address
    assert ray.is_initialized()


def test_a_connected_process_is_not_silently_somewhere_else(ray_session: Any) -> None:
    from raycl.compute.ray_session import connect

    with socket.create_server(("127.0.0.1", 0)) as other:
        other.listen()
        answer = threading.Thread(target=_greet, args=(other,))
        answer.start()
        with pytest.raises(ClusterError, match="connected to another Ray"):
            connect(f"127.0.0.1:{other.getsockname()[1]}")
        answer.join()


def _greet(server: socket.socket) -> None:
    """Answer once as a gRPC server does: with an empty SETTINGS frame."""
    connection, _ = server.accept()
    with connection:
        connection.recv(64)
        connection.sendall(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")


def test_a_pool_without_a_connection_joins_nothing(tmp_path: Path) -> None:
    script = "from raycl.compute.ray_pool import RayPool; RayPool(workers=1)"
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={**PLAIN, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "ClusterError: this process is not connected to Ray" in ended.stderr
