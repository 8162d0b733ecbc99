"""`raycl doctor`: what this machine has, and what to do where something is missing."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from raycl.engine.run import default_store
from raycl.errors import RayclError
from raycl.observe.console import Console
from raycl.store.store import Store

PACKAGES = ("ray", "torch", "numpy", "pyarrow", "pydantic", "safetensors", "scikit-learn")
SHARED_MEMORY = Path("/dev/shm")
ENOUGH_SHARED_MEMORY = 2 * 2**30


@dataclass(frozen=True)
class Check:
    """One thing looked at: fine, worth knowing, or broken."""

    name: str
    ok: bool
    found: str
    do: str = ""


@click.command()
@click.option("--store", help="The store to try [RAYCL_STORE, else raycl-store].")
@click.option("--address", help="A Ray cluster to reach, host:port; else one is started here.")
@click.option("--ray/--no-ray", default=True, help="Whether to try Ray, some 5 seconds.")
@click.option("--cluster", metavar="NAME|FILE", help="What would fail there, before it is sent.")
@click.option("--nodes", is_flag=True, help="Ask each node of the cluster at --address.")
@click.option("--mount", "mounts", multiple=True, help="With --nodes: a place each must have.")
@click.option("--json", "as_json", is_flag=True, help="With --nodes: one JSON object on stdout.")
def doctor(
    store: str | None,
    address: str | None,
    ray: bool,
    cluster: str | None,
    nodes: bool,
    mounts: tuple[str, ...],
    as_json: bool,
) -> int:
    """Check versions, Ray, GPU, shared memory and the store; say what to do."""
    if nodes:
        return _nodes(store or default_store(), address, mounts, as_json)
    checks = _there(cluster) if cluster else _checks(store or default_store(), address, ray)
    return _shown(checks)


def _there(name: str) -> Iterator[Check]:
    """What would fail on a cluster."""
    from raycl.launch.preflight import findings
    from raycl.launch.profiles import read_profile

    profile = read_profile(name)
    if profile.kind == "local":
        yield from _checks(profile.execution.store, None, profile.execution.pool == "ray")
        return
    for finding in findings(profile, profile.execution.store):
        yield Check(finding.name, finding.ok, finding.found, finding.do)


def _nodes(store: str, address: str | None, mounts: tuple[str, ...], as_json: bool) -> int:
    """What each node sees of the store and of mounts; an exit code."""
    from raycl.compute.ray_session import connect
    from raycl.engine.nodes import as_rows, look_from_all

    with connect(address, num_cpus=1):
        reports = look_from_all(store, mounts)
    if as_json:
        click.echo(json.dumps({"nodes": as_rows(reports)}))
        return 0
    return _shown(
        Check(r.node, not r.problems, "; ".join(r.problems) or f"Python {r.python}, Ray {r.ray}")
        for r in reports
    )


def _shown(checks: Iterable[Check]) -> int:
    console = Console()
    broken = 0
    for check in checks:
        mark = "[green]ok  [/]" if check.ok else "[red]FAIL[/]"
        console.print(f"{mark} {check.name:<14}", end="", highlight=False)
        console.print(check.found, markup=False, highlight=False)
        if check.do:
            console.print(f"     → {check.do}", markup=False, highlight=False)
        broken += not check.ok
    return 1 if broken else 0


def _checks(store: str, address: str | None, ray: bool) -> Iterator[Check]:
    yield Check("python", True, f"{platform.python_version()} on {platform.platform()}")
    yield from (_package(name) for name in PACKAGES)
    yield _processors()
    yield _gpu()
    yield _shared_memory()
    yield _store(store)
    yield _auth()
    if ray:
        yield _ray(address)


def _package(name: str) -> Check:
    try:
        return Check(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Check(name, False, "not installed", "pip install raycl again")


def _processors() -> Check:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Check("processors", True, f"{usable} usable of {os.cpu_count()}")


def _gpu() -> Check:
    import torch

    if not torch.cuda.is_available():
        return Check("GPU", True, "none: everything runs on the CPU")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Check("GPU", True, ", ".join(names))


def _shared_memory() -> Check:
    if not SHARED_MEMORY.is_dir():
        return Check("/dev/shm", True, "not there: Ray keeps its objects on disk")
    free = shutil.disk_usage(SHARED_MEMORY).free
    found = f"{free / 2**30:.1f} GiB free"
    if free < ENOUGH_SHARED_MEMORY:
        return Check("/dev/shm", True, found, "small: Ray spills to disk; docker: --shm-size=8g")
    return Check("/dev/shm", True, found)


def _store(uri: str) -> Check:
    def attempt() -> str:
        location = Store.open(uri).location
        path, data = f"doctor/{secrets.token_hex(8)}", secrets.token_bytes(1024)
        location.write(path, data)
        same = location.read(path) == data
        location.delete(path)
        if not same:
            raise RayclError("it gave back other bytes than were written", got=uri)
        return f"{uri}: written, read, deleted"

    return _tried("store", attempt)


def _auth() -> Check:
    mode = os.environ.get("RAY_AUTH_MODE", "Ray's default")
    token = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    return Check(
        "Ray auth", True, f"mode {mode}, {'a' if token else 'no'} token in the environment"
    )


def _ray(address: str | None) -> Check:
    def attempt() -> str:
        from raycl.compute.ray_resources import what_is_free
        from raycl.compute.ray_session import connect

        with connect(address, num_cpus=1):
            return f"{address or 'a cluster started here'}: {what_is_free()} free"

    return _tried("Ray", attempt)


def _tried(name: str, attempt: Callable[[], str]) -> Check:
    with suppress(BrokenPipeError):
        try:
            return Check(name, True, attempt())
        except RayclError as error:
            return Check(name, False, error.what, error.do or "")
    return Check(name, False, "the connection broke")
