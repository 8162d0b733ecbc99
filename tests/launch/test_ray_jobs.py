"""Real jobs on a real head that listens on loopback and wants a token."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from raycl.cli.main import code_of
from tests.compute.ports import free_port
from tests.streams.made_sets import arrays, save_npz

ROOT = Path(__file__).parents[2]
TOKEN = "c" * 32
PLAIN = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "RAYCL_"))}
DEADLINE_SECONDS = 90
LONG = (
    "run",
    "finetune",
    "--set",
    "stream.tasks=2",
    "--set",
    "method.align.epochs=1000000",
    "--pool",
    "local",
)
SHORT = ("run", "ncm", "--set", "stream.tasks=2")

pytestmark = pytest.mark.ray


@dataclass
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@dataclass
class Shell:
    """Commands in this process, with a profile of the head."""

    folder: Path
    port: int

    def __call__(self, *args: str) -> Answer:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = code_of(args)
        return Answer(code, out.getvalue(), err.getvalue())

    def execution(self, **changes: Any) -> dict[str, Any]:
        return {"store": str(self.folder / "store"), "workers": 1, **changes}

    def submit(self, command: tuple[str, ...], *options: str, cluster: str = "") -> Answer:
        data = ("--stream", f"embeddings:{self.folder / 'set.npz'}")
        cluster = cluster or self.profile()
        return self("submit", "--cluster", cluster, *options, "--", *command, *data)

    def profile(self, name: str = "mine", **changes: Any) -> str:
        """A profile's file with some fields changed."""
        tree = {
            "kind": "ray",
            "address": f"http://127.0.0.1:{self.port}",
            "python": sys.executable,
            "token_file": str(self.folder / "token"),
            "mounts": [str(self.folder)],
            "env": {"OMP_NUM_THREADS": "1"},
            "execution": self.execution(),
        }
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps({**tree, **changes}))
        return str(file)

    def job(self, id: str) -> Any:
        done = self("jobs", "status", id, "--json", "--cluster", self.profile())
        assert done.code == 0, done.err
        return json.loads(done.out)

    def until(self, id: str, printed: str) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while printed not in self("jobs", "logs", id, "--cluster", self.profile()).out:
            assert self.job(id)["live"] and time.monotonic() < deadline, self.job(id)
            time.sleep(0.1)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    # Short, because Unix sockets below it have a limit of about a hundred characters.
    folder = Path(tempfile.mkdtemp(prefix="raycl-"))
    own = tmp_path_factory.mktemp("launch")
    (own / "token").write_text(TOKEN)
    save_npz(own / "set.npz", arrays())
    port = free_port()
    command = [
        *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"),
        *("--node-ip-address=127.0.0.1", f"--port={free_port()}", f"--temp-dir={folder}"),
        *("--num-cpus=2", "--disable-usage-stats", "--object-store-memory=100000000"),
        *("--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}"),
        *("--min-worker-port=0", "--max-worker-port=0"),
        f"--ray-client-server-port={free_port()}",
        # Ray takes one fixed port here, and another Ray of this machine may have it.
        f"--dashboard-agent-listen-port={free_port()}",
    ]
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    env = {**PLAIN, "HOME": str(own), "PYTHONPATH": str(ROOT), **auth}
    output = own / "output"
    with output.open("w") as sink:
        head = subprocess.Popen(command, env=env, stdout=sink, stderr=sink)
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while "Ray runtime started" not in output.read_text() or not listens(port):
            if head.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"no Ray head came up: {output.read_text()[-2000:]}")
            time.sleep(0.1)
        yield Shell(own, port)
    finally:
        head.terminate()
        head.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_command_is_sent_once_followed_stopped_and_sent_again(shell: Shell) -> None:
    first = shell.submit(LONG, "--json", "--no-check")
    assert first.code == 0, first.err
    sent = json.loads(first.out)
    id = sent["job"]["id"]
    assert sent["new"] and id.endswith("-1")

    again = shell.submit(LONG, "--json")
    assert json.loads(again.out)["job"]["id"] == id, again.err
    assert not json.loads(again.out)["new"] and "on its way already" in again.err

    shell.until(id, "finetune")
    assert "beat" in shell("jobs", "status", id, "--cluster", shell.profile()).out
    cluster = ("--cluster", shell.profile())
    assert shell("jobs", "stop", id, *cluster).code == 0
    assert shell("jobs", "wait", id, *cluster).code == 75
    assert shell.job(id)["state"] == "stopped"
    doing = json.loads(
        shell("jobs", "status", id, "--store", str(shell.folder / "store"), "--json").out
    )
    assert doing["state"] == "stopped" and doing["job"] == id and doing["tasks"] == 2
    log = (shell.folder / "store" / "logs" / "jobs" / f"{id}.txt").read_text()
    assert "run the same command again to continue" in log and TOKEN not in log

    third = json.loads(shell.submit(LONG, "--json", "--no-check").out)
    assert third["new"] and third["job"]["id"] == id.removesuffix("1") + "2"
    shell("jobs", "stop", third["job"]["id"], *cluster)


@pytest.mark.filterwarnings("ignore:ssl=None is deprecated")  # in Ray's own client
def test_a_checked_command_runs_and_its_log_is_followed(shell: Shell) -> None:
    done = shell.submit(SHORT, "--wait")
    assert done.code == 0, (done.out, done.err)
    assert "ncm on" in done.out and "result/ncm-" in done.out
    assert "INFO" not in done.err
    listed = shell("jobs", "list", "--json", "--cluster", shell.profile()).out.splitlines()
    assert "done" in {json.loads(line)["state"] for line in listed}


@pytest.mark.filterwarnings("ignore:ssl=None is deprecated")
@pytest.mark.parametrize("kind", ["fit", "sweep"])
def test_other_commands_are_jobs_too(shell: Shell, kind: str) -> None:
    """A fit by two workers, and a sweep on Tune whose space travels with it."""
    cluster = ("--cluster", shell.profile("two", execution=shell.execution(workers=1)))
    if kind == "fit":
        data = ("--embeddings", str(shell.folder / "set.npz"), "--generator", "gaussian")
        command: tuple[str, ...] = ("fit", *data, "--json")
    else:
        stream = {"kind": "embeddings", "paths": [str(shell.folder / "set.npz")], "tasks": 2}
        space = {
            "base": {"method": {"kind": "slda"}, "stream": stream},
            "axes": {"method.shrinkage": {"uniform": [0.1, 0.9]}},
            "samples": 2,
        }
        file = shell.folder / "travelling.json"
        file.write_text(json.dumps(space))
        command = ("sweep", str(file), "--json")
    done = shell("submit", *cluster, "--no-check", "--wait", "--", *command)
    assert done.code == 0, (done.out, done.err)
    told = json.loads(next(x for x in done.out.splitlines() if x.startswith("{")))
    if kind == "fit":
        assert told["computed"] == {"generator": told["classes"]}
    else:
        assert told["trials"] == 2 and told["states"] == {"complete": 2}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("wrong", ["wants a token", "a wrong token"]),
        ("none", ["wants a token", "no token"]),
        ("dead", ["nothing answers at http://127.0.0.1:"]),
    ],
)
def test_what_would_fail_is_told_before_anything_is_sent(
    shell: Shell, name: str, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(shell.folder))
    (shell.folder / "wrong").write_text("d" * 32)
    changes: dict[str, dict[str, Any]] = {
        "wrong": {"token_file": str(shell.folder / "wrong")},
        "none": {"token_file": None},
        "dead": {"address": f"http://127.0.0.1:{free_port()}"},
    }
    done = shell.submit(SHORT, cluster=shell.profile(name, **changes[name]))
    said = " ".join((done.out + done.err).split())
    assert done.code == 2 and all(part in said for part in parts), said
    assert TOKEN not in said and "d" * 32 not in said


@pytest.mark.ordeal
@pytest.mark.filterwarnings("ignore:ssl=None is deprecated")
def test_a_command_that_fails_ends_with_its_own_exit_code(shell: Shell) -> None:
    done = shell.submit((*SHORT, "--set", "stream.tasks=99"), "--no-check", "--wait")
    assert done.code == 2 and "more tasks than classes" in done.out + done.err, done.err


@pytest.mark.ordeal
def test_doctor_looks_at_a_cluster(shell: Shell) -> None:
    done = shell("doctor", "--cluster", shell.profile())
    assert done.code == 0, done.out
    for name in ("Jobs API", "nodes", "versions", "resources"):
        assert f"ok   {name}" in done.out
    missing = shell.profile("missing", mounts=[str(shell.folder), "/no/such/folder"])
    done = shell("doctor", "--cluster", missing)
    assert done.code == 1 and "has no /no/such/folder" in " ".join(done.out.split())


@pytest.mark.ordeal
def test_a_cluster_that_is_too_small_is_told(shell: Shell) -> None:
    done = shell.submit(
        SHORT, cluster=shell.profile("large", execution=shell.execution(workers=64))
    )
    assert done.code == 2 and "resources: 65 CPUs" in done.err


@pytest.mark.ordeal
@pytest.mark.filterwarnings("ignore:ssl=None is deprecated")
def test_raycl_itself_may_travel(shell: Shell) -> None:
    """To nodes whose Python has another raycl, or none: the one that travels is imported."""
    python = shell.folder / "python"
    show = f"{sys.executable} -c 'import raycl; print(raycl.__file__)'"
    python.write_text(f'#!/bin/bash\n{show}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    done = shell.submit(
        (*SHORT, "--seed", "4"), "--no-check", "--wait",
        cluster=shell.profile("ship", ship=True, python=str(python)),
    )  # fmt: skip
    assert done.code == 0 and "py_modules_files" in done.out, done.out
