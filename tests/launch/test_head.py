"""A head of this machine: private, with a token, and gone once it is idle."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raycl.errors import ClusterError, ConfigError
from raycl.launch import idleness
from raycl.launch.head import Head, argv, keep, refuse_public
from raycl.launch.idleness import up_while_used, wait_until_idle
from raycl.launch.profiles import read_profile
from tests.compute.ports import free_port
from tests.engine.processes import Command, descendants, gone

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("host", ["127.0.0.1", "10.1.2.3", "192.168.0.4", "fd00::1", "::1"])
def test_private_addresses_are_taken(host: str) -> None:
    refuse_public(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "8.8.8.8", "localhost.example", "", "10.1.2"])
def test_public_and_unknown_addresses_are_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="private interface only"):
        refuse_public(host)


def test_the_dashboard_listens_where_the_head_does(tmp_path: Path) -> None:
    words = argv(Head("10.0.0.5", 7000, 7001), tmp_path)
    assert "--dashboard-host=10.0.0.5" in words and "--node-ip-address=10.0.0.5" in words


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        head = Head(port=port, dashboard_port=free_port(), token_file=tmp_path / "token")
        with pytest.raises(ClusterError, match="cannot be used"):
            keep(head, lambda line: None)


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x" * 32)
    (tmp_path / "token").chmod(0o644)
    head = Head(port=free_port(), dashboard_port=free_port(), token_file=tmp_path / "token")
    with pytest.raises(ConfigError, match="others can read"):
        keep(head, lambda line: None)


# Idleness


class Uses:
    """Says of each question whether somebody was there, or that nobody answers."""

    def __init__(self, *answers: bool | None) -> None:
        self.answers = list(answers)

    def __call__(self) -> bool:
        answer = self.answers.pop(0) if self.answers else False
        if answer is None:
            raise ClusterError("nobody answers")
        return answer


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that sleeps alone move on."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


@pytest.mark.parametrize(
    ("answers", "least"),
    [((), 60), ((True,) * 4, 78), ((False, False, None), 72), ((False,) * 10 + (True,), 120)],
)
def test_use_silence_and_a_last_question_prolong_it(
    clocked: list[float], answers: tuple[bool | None, ...], least: float
) -> None:
    told: list[str] = []
    wait_until_idle(Uses(*answers), 60.0, tell=told.append, pause=15.0)
    assert least <= clocked[0] < least + 3
    assert told == ["nobody used the cluster for 1:00"]


def test_a_cluster_is_taken_down_after_its_last_job(
    clocked: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    called: list[str] = []
    monkeypatch.setattr(idleness, "is_busy", lambda profile: clocked[0] < 100)
    monkeypatch.setattr(
        idleness.subprocess, "Popen", lambda words, **more: subprocess_that(words, called)
    )
    profile = read_profile("kuberay-shared")
    code = up_while_used(
        profile, 60.0, lambda words, folder: called.append(words[3]) or 0, called.append
    )
    assert code == 0
    words = [text.split()[0] for text in called]
    assert words == ["apply", "it", "port-forward", "nobody", "terminated", "delete"]


class subprocess_that:  # noqa: N801 - stands for a function
    """A tunnel that is dug."""

    def __init__(self, words: tuple[str, ...], called: list[str]) -> None:
        self.called = called
        called.append(next(word for word in words if word == "port-forward"))

    def __enter__(self) -> subprocess_that:
        return self

    def __exit__(self, *_: object) -> None:
        """It has ended."""

    def terminate(self) -> None:
        self.called.append("terminated")


# For real


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "0" * 24 + "01000000"}
"""As the kernel writes 127.0.0.1, the same within IPv6, and ::1."""
JOIN = """
import os, sys
from raycl.compute import WorkerSpec
from raycl.compute.ray_pool import RayPool
from raycl.compute.ray_session import connect
from tests.compute.workers import Times
from tests.launch.test_head import listening
with connect(sys.argv[1] if len(sys.argv) > 1 else None, num_cpus=1):
    with RayPool(workers=1) as pool:
        print(sorted(d.value for d in pool.map_unordered(WorkerSpec(Times, (2,)), [1, 2])))
    print(sorted(listening(os.getpid())))
"""


def listening(pid: int) -> set[str]:
    """The addresses on which a process and all below it listen (Linux)."""
    below = {pid, *(child for child, _ in descendants(pid))}
    sockets = set()
    for one in below:
        for link in Path(f"/proc/{one}/fd").glob("*"):
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                sockets.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in sockets:
                found.add(words[1].partition(":")[0])
    return found


def assert_gone(processes: list[tuple[int, str]]) -> None:
    """Nothing of it is left, after a moment that Ray's agents take."""
    deadline = time.monotonic() + 30
    while left := [one for one in processes if not gone(one[0])]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def told(args: list[str], **environment: str) -> list[str]:
    """What a driver of its own process says."""
    done = subprocess.run(
        [sys.executable, "-c", JOIN, *args],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.ray
def test_a_local_ray_listens_on_loopback_alone() -> None:
    values, addresses = told([])
    assert values == "[2, 4]"
    found = set(ast.literal_eval(addresses))
    assert found and found <= LOOPBACK


@pytest.mark.ray
def test_a_real_head_is_private_and_goes_once_it_is_idle(tmp_path: Path) -> None:
    token, port, jobs = tmp_path / "own" / "token", free_port(), free_port()
    with Command(
        *("cluster", "head", "--port", str(port), "--dashboard-port", str(jobs), "--cpus", "2"),
        *("--token-file", str(token), "--idle-timeout", "20s"),
        folder=tmp_path, RAY_AUTH_MODE="", HOME=str(tmp_path),
    ) as head:  # fmt: skip
        head.until("a head listens")
        assert token.stat().st_mode & 0o777 == 0o600
        assert token.read_text() not in head.log.read_text()
        assert listening(head.process.pid) <= LOOPBACK
        file = tmp_path / "mine.json"
        store = {"store": str(tmp_path / "store"), "workers": 1}
        file.write_text(json.dumps({
            "kind": "ray", "address": f"http://127.0.0.1:{jobs}", "token_file": str(token),
            "python": sys.executable, "mounts": [str(tmp_path)], "execution": store,
        }))  # fmt: skip
        submit = ["submit", "--cluster", str(file), "--no-check", "--wait", "--"]
        done = subprocess.run(
            [sys.executable, "-m", "raycl", *submit, "run", "ncm", "--stream", "digits"],
            capture_output=True, text=True, timeout=150,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        joined = told([f"127.0.0.1:{port}"], RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token))
        assert joined[0] == "[2, 4]" and set(ast.literal_eval(joined[1])) <= LOOPBACK
        below = descendants(head.process.pid)
        assert head.end() == (0, "")
        assert "nobody used the cluster for 0:20" in head.log.read_text()
        assert_gone(below)


@pytest.mark.ray
@pytest.mark.ordeal
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_a_head(tmp_path: Path, number: int) -> None:
    ports = ("--port", str(free_port()), "--dashboard-port", str(free_port()))
    token = ("--token-file", str(tmp_path / "token"))
    with Command("cluster", "head", *ports, *token, folder=tmp_path, RAY_AUTH_MODE="") as head:
        head.until("a head listens")
        head.kill(number)
        assert head.end() == (0 if number == signal.SIGTERM else -number, "")
        assert_gone(head.below)
