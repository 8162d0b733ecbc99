"""Connecting to Ray: a local one of our own, or a cluster that was named.

Guarantees: without an address no cluster is ever joined, whatever runs on this host or
stands in `RAY_ADDRESS`; an address where nothing answers, or where the token is refused,
is a `ClusterError` within seconds (Ray itself takes twenty and does not say which); a
session closes only what it started; workers can import what the driver can, as long as
they see the same files.

A local Ray gets a token of its own, kept in memory, unless the user configured one, and
listens on loopback alone. So it needs no writable home, and nobody else can reach it.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import ray

from raycl.errors import ClusterError, ConfigError

PROBE_SECONDS = 3.0
NO_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_SET_A_TOKEN = (
    "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the cluster's token, or put the token in "
    "a file named by RAY_AUTH_TOKEN_PATH (by default .ray/auth_token in the home folder)"
)


@dataclass
class Session:
    """A connection to Ray. Use it as a context manager."""

    address: str
    owns: bool
    """Whether closing the session ends the connection, and a local Ray with it."""
    local: bool = False
    """Whether this session started the Ray it talks to."""
    _environment: dict[str, str | None] = field(default_factory=dict)

    def close(self) -> None:
        """Ends what the session started, and nothing else. Twice is harmless."""
        if not self.owns:
            return
        self.owns = False
        with _keeping_sigterm():
            ray.shutdown()
        _restore(self._environment)
        _reread_auth()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def connect(
    address: str | None = None,
    *,
    token: str | None = None,
    num_cpus: float | None = None,
    object_store_mib: int | None = None,
) -> Session:
    """Joins the cluster at the address, or starts a local Ray when there is none.

    A process that is connected already, such as a Ray worker, keeps its connection.
    """
    if ray.is_initialized():
        return _current(address)
    before = {name: os.environ.get(name) for name in _AUTH}
    try:
        if address is None:
            _prepare_own_auth()
            options, loopback = _local_options(num_cpus, object_store_mib), True
        else:
            target = resolve_address(address)
            _prepare_auth(token)
            _probe(target)
            options, loopback = {"address": target}, _is_private_to_this_machine(target)
        with _staying_on_loopback() if loopback else contextlib.nullcontext():
            context = _init(address, options)
    except BaseException:
        _restore(before)
        _reread_auth()
        raise
    return Session(
        context.address_info["gcs_address"],
        owns=True,
        local=address is None,
        _environment=before,
    )


def _current(address: str | None) -> Session:
    """The connection that this process has, unless another cluster was asked for."""
    connected = ray.get_runtime_context().gcs_address
    if address in (None, "auto") or _same_place(resolve_address(str(address)), connected):
        return Session(connected, owns=False)
    _probe_port(str(address))
    raise ClusterError(
        "this process is connected to another Ray already",
        got=f"{connected}, asked for {address}",
        do="call ray.shutdown() first, leave the address out, or use a process of its own",
    )


def _same_place(asked: str, connected: str) -> bool:
    """Whether two addresses mean one port of one host, however they are spelt."""
    (host, _, port), (own_host, _, own_port) = asked.rpartition(":"), connected.rpartition(":")
    if port != own_port:
        return False
    with contextlib.suppress(OSError):
        found = socket.gethostbyname(host.strip("[]"))
        return found.startswith("127.") or found == socket.gethostbyname(own_host)
    return False


def require_connection() -> None:
    """An error unless this process is connected: Ray would otherwise join what it finds."""
    if not ray.is_initialized():
        raise ClusterError(
            "this process is not connected to Ray",
            do="open a session with raycl.compute.ray_session.connect() first",
        )


def _local_options(cpus: float | None, store_mib: int | None) -> dict[str, Any]:
    return {
        "address": "local",
        "num_cpus": cpus,
        "object_store_memory": None if store_mib is None else store_mib * 2**20,
        "include_dashboard": False,
    }


def _init(asked: str | None, options: dict[str, Any]) -> Any:
    # Ray's own knobs; whoever set them keeps the last word.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    _quieten()
    options["log_to_driver"] = False
    options["job_config"] = ray.job_config.JobConfig(_py_driver_sys_path=_own_search_path())
    try:
        with _keeping_sigterm():
            return ray.init(logging_level=logging.ERROR, **options)
    except ray.exceptions.AuthenticationError as error:
        raise ClusterError("Ray refused the token", got=asked, do=_SET_A_TOKEN) from error
    except Exception as error:  # Ray raises it bare where its processes take 30 s to start
        where = "start a local Ray" if asked is None else f"join the Ray cluster at {asked}"
        raise ClusterError(
            f"could not {where}: {error}",
            do="check that versions of Ray and Python agree, the disk and memory of this node, and "
            "how busy it is",
        ) from error


@contextlib.contextmanager
def _staying_on_loopback() -> Iterator[None]:
    """Ray takes 127.0.0.1 for this machine's own address, and listens to everybody; where it
    is told that there are no clusters, as on a laptop's system, it leaves loopback alone."""
    constants: Any = importlib.import_module("ray._private.ray_constants")
    before, variable = constants.ENABLE_RAY_CLUSTER, os.environ.get(NO_CLUSTERS)
    constants.ENABLE_RAY_CLUSTER = False
    os.environ[NO_CLUSTERS] = "0"  # for the processes that are started now
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before
        _restore({NO_CLUSTERS: variable})


def _is_private_to_this_machine(address: str) -> bool:
    """Whether a Ray of this machine can be reached by its loopback alone."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):
        if socket.gethostbyname(host.strip("[]")).startswith("127."):
            services: Any = importlib.import_module("ray._private.services")
            own = str(services.node_ip_address_from_perspective())
            return own.startswith("127.") or not _listens(own, int(port))
    return False


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), PROBE_SECONDS).close()
    except OSError:
        return False
    return True


def _quieten() -> None:
    # Ray prints every death of a worker to stdout, which belongs to the command's answer;
    # our events tell of it.
    importlib.import_module("ray._private.worker").__dict__["_worker_logs_enabled"] = False


@contextlib.contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Ray installs a handler of its own when it starts, and when it ends takes away whatever
    there is, below Python's knowledge; one that was there before comes back."""
    mine = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if mine else None
    try:
        yield
    finally:
        if callable(before):
            signal.signal(signal.SIGTERM, before)


def _own_search_path() -> list[str]:
    """What the driver imports from beside the installed packages, for its workers."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return []  # a submitted job brings a working folder, which these would shadow
    installed = (Path(sys.prefix), Path(sys.base_prefix))
    folders = [Path(entry or ".").resolve() for entry in sys.path]
    found = [
        str(folder)
        for folder in dict.fromkeys(folders)
        if folder.is_dir() and not any(folder.is_relative_to(root) for root in installed)
    ]
    return found[::-1]  # a worker puts one before the other


def _prepare_own_auth() -> None:
    if not any(os.environ.get(name) for name in _AUTH):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        _reread_auth()


def _prepare_auth(token: str | None) -> None:
    """Turns token mode on if there is a token; a cluster without one does not mind it."""
    if token is not None:
        os.environ["RAY_AUTH_TOKEN"] = token
        os.environ.pop("RAY_AUTH_TOKEN_PATH", None)
        os.environ["RAY_AUTH_MODE"] = "token"
    elif "RAY_AUTH_MODE" not in os.environ and _token_at_hand():
        os.environ["RAY_AUTH_MODE"] = "token"
    _reread_auth()


def _token_at_hand() -> bool:
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return True
    with contextlib.suppress(OSError, RuntimeError):
        return (Path.home() / ".ray" / "auth_token").is_file()
    return False


def _reread_auth() -> None:
    """Ray caches mode and token at import. Versions without tokens have nothing to reread."""
    with contextlib.suppress(ImportError, AttributeError):
        core = _core()
        core.Config.initialize("")
        core.AuthenticationTokenLoader.instance().reset_cache()


def _core() -> Any:
    """Ray's compiled core, which alone can do what has no public way."""
    return importlib.import_module("ray._raylet")


def _restore(environment: dict[str, str | None]) -> None:
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def resolve_address(address: str) -> str:
    """The address as Ray wants it, or an error that says what an address is."""
    if address == "auto":
        return _find_running()
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not host or not port.isdigit():
        raise ConfigError(
            "this is not the address of a Ray cluster",
            got=address,
            do="write host:port (6379 unless it was changed), 'auto', or nothing for a local Ray",
        )
    return address


def _find_running() -> str:
    from ray._private.services import canonicalize_bootstrap_address

    try:
        found = canonicalize_bootstrap_address("auto")
    except ConnectionError:
        found = None
    if not found:
        raise ClusterError(
            "no Ray cluster runs on this machine",
            got="auto",
            do="start one with `ray start --head`, give host:port, or leave the address out",
        )
    return str(found)


def _probe(address: str) -> None:
    """An error that explains, where Ray would wait long and then only say no."""
    _probe_port(address)
    try:
        _core().GcsClient(address=address)
    except ray.exceptions.AuthenticationError as error:
        given = "a wrong token" if _token_at_hand() else "no token"
        raise ClusterError(
            f"the Ray cluster at {address} wants a token", got=given, do=_SET_A_TOKEN
        ) from error
    except (ray.exceptions.RayError, RuntimeError, ConnectionError) as error:
        raise ClusterError(f"the Ray cluster at {address} does not answer: {error}") from error


def _probe_port(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS) as probe:
            if os.environ.get("RAY_USE_TLS", "0") in ("", "0"):
                probe.settimeout(PROBE_SECONDS)
                probe.sendall(_HTTP2_HELLO)
                answer = probe.recv(4)
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"nothing answers at {address}: {error}",
            do="check the address and that the cluster runs; leave it out to use a local Ray",
        ) from error
    # A gRPC server greets with a SETTINGS frame, whose type is the fourth byte.
    if os.environ.get("RAY_USE_TLS", "0") in ("", "0") and answer[3:] != b"\x04":
        raise ClusterError(
            f"something answers at {address}, and it is not a Ray cluster",
            do="use the port given to `ray start --head --port` (6379 unless it was changed)",
        )
