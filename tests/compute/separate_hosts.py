"""A fit on two hosts, each in a network namespace of its own, of which one is cut off.

python -m tests.compute.separate_hosts FOLDER [for-a-moment|for-good]

Needs root and iproute2. `for-a-moment`: the link is down for less than it takes to be called
dead. `for-good`: the host is given up, its raylet ends, and after it was healed it joins anew.
Prints one JSON object.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raycl.compute.ray_session import connect
from raycl.config.execution import Execution, Worker
from raycl.config.streams import EmbeddingsStream
from raycl.engine.fitting import fit
from raycl.observe.events import Computed, Event, Warned, WorkerLost
from tests.compute.living_cluster import CLASSES, SLOW
from tests.engine.worlds import World
from tests.fitting.made_fits import record_bytes, tensor_digests

HEAD, OTHER = "10.231.7.1", "10.231.7.2"
PORT = 6390
MOMENT_SECONDS, GIVEN_UP_SECONDS, PATIENCE_SECONDS = 1.0, 60.0, 200.0
HEALTH = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
}


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def wait_for(file: Path) -> None:
    """Returns once a file is there, on a machine that may be slow."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} did not appear"
        time.sleep(0.05)


class Hosts:
    """Two namespaces with a cable between them, and what runs inside."""

    def __init__(self, folder: Path) -> None:
        name = f"rc{secrets.token_hex(2)}"
        self.folder, self.names = folder, (f"{name}a", f"{name}b")
        self.links = (f"{name}va", f"{name}vb")
        self.started: list[subprocess.Popen[bytes]] = []

    def lay(self) -> None:
        for name in self.names:
            ip("netns", "add", name)
        ip("link", "add", self.links[0], "type", "veth", "peer", "name", self.links[1])
        for name, link, address in zip(self.names, self.links, (HEAD, OTHER), strict=True):
            ip("link", "set", link, "netns", name)
            ip("-n", name, "address", "add", f"{address}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "link", "set", "lo", "up")

    def cut(self) -> None:
        ip("-n", self.names[1], "link", "set", self.links[1], "down")

    def heal(self) -> None:
        ip("-n", self.names[1], "link", "set", self.links[1], "up")

    def start(self, host: int, *words: str) -> subprocess.Popen[bytes]:
        """A program on a host, whose group ends with us."""
        log = (self.folder / f"log-{len(self.started)}").open("wb")
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.names[host], *words],
            env={**os.environ, **HEALTH, "RAY_AUTH_MODE": "disabled"},
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def ray(self, host: int, *words: str) -> subprocess.Popen[bytes]:
        program = str(Path(sys.executable).with_name("ray"))
        address = (HEAD, OTHER)[host]
        temporary = tempfile.mkdtemp(prefix="raycl-", dir=self.folder)
        return self.start(
            host, program, "start", "--block", f"--node-ip-address={address}", "--num-cpus=2",
            "--object-store-memory=100000000", "--disable-usage-stats", *words,
            *([f"--temp-dir={temporary}"] if "--head" in words else []),
        )  # fmt: skip

    def end(self) -> None:
        for name in self.names:
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
            for pid in pids.stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), 9)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        for process in self.started:
            process.wait(30)


@contextlib.contextmanager
def two_hosts(folder: Path) -> Iterator[Hosts]:
    hosts = Hosts(folder)
    try:
        hosts.lay()
        yield hosts
    finally:
        hosts.end()


def conduct(folder: Path, cut_for: str) -> dict[str, Any]:
    """From outside: starts both hosts and a driver on the first, and cuts when it says so."""
    with two_hosts(folder) as hosts:
        hosts.ray(0, "--head", f"--port={PORT}", "--include-dashboard=false")
        time.sleep(5)
        hosts.ray(1, f"--address={HEAD}:{PORT}")
        driver = hosts.start(
            0, sys.executable, "-m", "tests.compute.separate_hosts", str(folder), cut_for, "drive"
        )
        wait_for(folder / "working")
        hosts.cut()
        if cut_for == "for-a-moment":
            time.sleep(MOMENT_SECONDS)
        else:
            wait_for(folder / "lost")
        hosts.heal()
        if cut_for == "for-good":
            hosts.started[1].wait(GIVEN_UP_SECONDS)  # a raylet that was given up ends itself
            hosts.ray(1, f"--address={HEAD}:{PORT}")
        (folder / "healed").touch()
        code = driver.wait(300)
        log = (folder / "log-2").read_text()
        assert code == 0, log
    return dict(json.loads((folder / "told.json").read_text()))


def drive(folder: Path, cut_for: str) -> None:
    """On the first host: the fit, and what became of it."""
    world = World(folder, classes=CLASSES, train=60, noise=1.0)
    stream = EmbeddingsStream(paths=(str(world.data),))
    events: list[Event] = []
    kept: dict[str, bytes] = {}

    def watch(event: Event) -> None:
        events.append(event)
        computed = sum(isinstance(e, Computed) for e in events)
        if computed >= 3 and not kept:
            kept.update(record_bytes(world.store))
            (folder / "working").touch()
            if cut_for == "for-a-moment":
                wait_for(folder / "healed")
        if isinstance(event, WorkerLost):
            (folder / "lost").touch()
            wait_for(folder / "healed")

    place = Execution(
        store=str(world.store), pool="ray", workers=3, worker=Worker(cpus=1), device="cpu"
    )
    with connect(f"{HEAD}:{PORT}"):
        result = fit(stream, SLOW, place, watch)
        import ray

        hosts = {n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"]}  # type: ignore[no-untyped-call]
    fit(stream, SLOW, Execution(store=str(folder / "here")))
    after = record_bytes(world.store)
    told = {
        "lost": [e.worker for e in events if isinstance(e, WorkerLost)],
        "warned": [e.message for e in events if isinstance(e, Warned)],
        "classes": result.classes,
        "refitted": sum(after[key] != record for key, record in kept.items()),
        "same": tensor_digests(folder / "here") == tensor_digests(world.store),
        "hosts": sorted(hosts),
    }
    (folder / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    place, how = Path(sys.argv[1]), sys.argv[2]
    if sys.argv[3:] == ["drive"]:
        drive(place, how)
    else:
        sys.stdout.write(json.dumps(conduct(place, how)) + "\n")
