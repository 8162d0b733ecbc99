"""A Ray head on this machine that stays until it is stopped, or idle for long enough.

Guarantees: it listens on loopback alone, or is reached by a private address that was named; it
wants a token, which is in a file that only this user can read; what it leaves on the disk goes
with it. One SIGTERM or Ctrl-C ends it, and on Linux it ends with the command even where that is
killed. Not guaranteed: beyond loopback, Ray itself opens its
ports on every interface of the machine, and only the token keeps others out.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from raycl.compute.stopping import StopRequest, catching_signals
from raycl.config.clusters import RayProfile
from raycl.errors import ClusterError, ConfigError
from raycl.launch.clusters import make_token
from raycl.launch.idleness import POLL_SECONDS, Tell, is_busy, wait_until_idle

LOOPBACK = "127.0.0.1"
START_SECONDS = 120.0
_END_SECONDS = 30.0
_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux."""


@dataclass(frozen=True)
class Head:
    """Where a head is to listen, and what it offers."""

    host: str = LOOPBACK
    port: int = 6379
    dashboard_port: int = 8265
    token_file: Path = Path("~/.ray/auth_token")
    cpus: int | None = None
    gpus: int | None = None
    idle_seconds: float | None = None

    @property
    def profile(self) -> RayProfile:
        """How commands get to it."""
        return RayProfile(
            address=f"http://{self.host}:{self.dashboard_port}",
            token_file=str(self.token_file),
            python=sys.executable,
        )


def keep(head: Head, tell: Tell, *, pause: float = POLL_SECONDS) -> int:
    """Runs the head until it is told to stop or was idle for long enough; an exit code."""
    refuse_public(head.host)
    for port in (head.port, head.dashboard_port):
        _refuse_taken(head.host, port)
    make_token(head.token_file.expanduser())
    stop = StopRequest()
    with catching_signals(stop), _started(head, stop) as process:
        if stop.requested:
            return 0
        tell(_use(head))
        wait_until_idle(
            lambda: is_busy(head.profile),
            float("inf") if head.idle_seconds is None else head.idle_seconds,
            goes_on=lambda: not stop.requested and process.poll() is None,
            tell=tell,
            pause=pause,
        )
        if process.poll() is not None:
            raise ClusterError("the head died", got=f"exit code {process.returncode}")
    return 0


def refuse_public(host: str) -> None:
    """A `ConfigError` unless it is loopback or a private address of this machine."""
    try:
        address = ipaddress.ip_address(host)
        private = address.is_loopback or (address.is_private and not address.is_unspecified)
    except ValueError:
        private = False
    if not private:
        raise ConfigError(
            "a head listens on loopback or on a private interface only",
            got=host,
            do="name this machine's address in the cluster's network, such as 10.0.0.5",
        )


def _refuse_taken(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ClusterError(
                f"the port cannot be used: {error.strerror}",
                got=f"{host}:{port}",
                do="another head may run: use it, or name other ports",
            ) from error


@contextmanager
def _started(head: Head, stop: StopRequest) -> Iterator[subprocess.Popen[bytes]]:
    # Short, because Unix sockets below it have a limit of about a hundred characters.
    folder = Path(tempfile.mkdtemp(prefix="raycl-head-"))
    output = folder / "output"
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(head.token_file.expanduser()),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    environment.pop("RAY_AUTH_TOKEN", None)
    if ipaddress.ip_address(head.host).is_loopback:
        # Else Ray takes 127.0.0.1 for this machine's own address, and listens to everybody.
        environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    with output.open("wb") as sink:
        # Its own group, so that Ctrl-C reaches it by us alone.
        process = subprocess.Popen(
            argv(head, folder),
            env=environment,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            preexec_fn=_end_with_the_command if sys.platform == "linux" else None,
        )
    try:
        _wait_for_start(head, process, output, stop)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _end_with_the_command() -> None:
    """In the child: a SIGTERM once the command is gone, be it by a SIGKILL, which it cannot
    pass on. A head that nobody watches would stay up for ever."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def argv(head: Head, folder: Path) -> list[str]:
    """`ray start` in the foreground."""
    program = Path(sys.executable).with_name("ray")
    shares = {"num-cpus": head.cpus, "num-gpus": head.gpus}
    return [
        str(program if program.is_file() else "ray"), "start", "--head", "--block",
        f"--node-ip-address={head.host}", f"--port={head.port}", f"--temp-dir={folder}",
        "--include-dashboard=true", f"--dashboard-host={head.host}",
        f"--dashboard-port={head.dashboard_port}", "--disable-usage-stats",
        "--min-worker-port=0", "--max-worker-port=0",
        # Ray takes fixed ports for these, and another Ray of this machine may have them.
        f"--ray-client-server-port={_free_port()}",
        f"--dashboard-agent-listen-port={_free_port()}",
        *(f"--{name}={value}" for name, value in shares.items() if value is not None),
    ]  # fmt: skip


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return int(listener.getsockname()[1])


def _wait_for_start(
    head: Head, process: subprocess.Popen[bytes], output: Path, stop: StopRequest
) -> None:
    until = time.monotonic() + START_SECONDS
    while not stop.requested:
        said = output.read_text(errors="replace")
        if "Ray runtime started" in said and _listens(head.host, head.dashboard_port):
            return
        if process.poll() is not None or time.monotonic() > until:
            last = "; ".join(line for line in said.strip().splitlines()[-3:] if line.strip())
            raise ClusterError("the head did not start", got=last or "nothing was said")
        time.sleep(0.1)


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def _use(head: Head) -> str:
    ends = "" if head.idle_seconds is None else ", or once it is idle"
    return (
        f"a head listens at {head.host}:{head.port}, its Jobs API at {head.profile.address}; "
        f"its token is in {head.token_file}. Ctrl-C ends it{ends}.\n"
        f"  raycl run … --address {head.host}:{head.port}\n"
        f"  a profile: {{kind: ray, address: {head.profile.address}, "
        f"token_file: {head.token_file}, python: {sys.executable}, …}}"
    )
