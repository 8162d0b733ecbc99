"""Whether what a command reads and writes is where every node of a cluster sees it.

Guarantees: a path of this machine alone is refused before anything is sent, with what to do;
`$RAYCL_DATA` is resolved with the profile's own value, never with this machine's.
Looks at names only; what is really there, each node says (see `raycl.engine.nodes`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from raycl.config.clusters import LocalProfile, Profile, under
from raycl.config.execution import DEFAULT_STORE
from raycl.config.sources.catalogue import parse_names
from raycl.config.streams import parse_probe
from raycl.errors import ConfigError
from raycl.launch.command import Command
from raycl.redaction import looks_secret

BUCKETS = ("s3", "gs")
_WEIGHTS = (".pt", ".pth", ".bin", ".safetensors")
_DATA = "RAYCL_DATA"


def store_of(command: Command, profile: Profile) -> str:
    """The store that the command will use there."""
    asked = command.asked.get("execution", {}).get("store")
    return str(asked or profile.env.get("RAYCL_STORE") or profile.execution.store)


def check_reach(command: Command, profile: Profile) -> None:
    """A `ConfigError` unless every node finds what the command names."""
    if isinstance(profile, LocalProfile):
        return
    for argument in command.args:
        if looks_secret(argument):
            raise ConfigError(
                "an argument holds a secret, and arguments are shown in logs and dashboards",
                do="name it in the profile, under secrets, by reference",
            )
    store = store_of(command, profile)
    if store == DEFAULT_STORE:
        raise ConfigError(
            "no store is named that the cluster can reach",
            do="set execution.store in the profile, or --store: s3://…, gs://…, or a mount",
        )
    _check("the store", store, profile, writes=True, buckets=True)
    for what, path in _data(command.asked):
        _check(what, path, profile, writes=False, buckets=False)
    for option, path in command.paths:
        writes = option in ("--out", "--html", "--latex")
        _check(option, path, profile, writes=writes, buckets=False)


def data_of(command: Command, profile: Profile) -> Iterator[str]:
    """The paths of data that the command reads, as nodes see them."""
    for what, path in _data(command.asked):
        yield _resolved(what, path, profile)


def _data(asked: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for role in ("stream", "probe"):
        spec = asked.get(role)
        # In a file a stream may be written as on the command line.
        tree = parse_probe(spec) if isinstance(spec, str) else spec
        for path in _paths(tree if isinstance(tree, dict) else {}):
            yield f"the {role}", str(path)
    backbone = asked.get("backbone")
    name = str((backbone.get("name") if isinstance(backbone, dict) else None) or "")
    scheme, _, place = name.partition(":")
    if place and (scheme == "local-dir" or place.endswith(_WEIGHTS)):
        yield "the backbone", place


def _paths(spec: dict[str, Any]) -> list[str]:
    """What a stream reads; a data set known by name lies below the root of data sets."""
    root = str(spec.get("root") or f"${_DATA}")
    if spec.get("kind") == "named" or parse_names(str(spec.get("kind"))):
        return [root]
    paths = spec.get("paths", [])
    paths = [str(path) for path in (paths if isinstance(paths, list | tuple) else [paths])]
    if spec.get("kind") == "hf":
        return [path if path.startswith(("/", "$")) else root for path in paths]
    return paths


def _check(what: str, place: str, profile: Profile, *, writes: bool, buckets: bool) -> None:
    scheme = urlsplit(place).scheme if "://" in place else ""
    if buckets and scheme in BUCKETS:
        return
    path = _resolved(what, place.removeprefix("file://"), profile)
    mounts = profile.mounts
    if not path.startswith("/") or ".." in path.split("/") or not under(path, mounts):
        seen = ", ".join(mount.path for mount in mounts) or "none is listed"
        bucket = "an s3:// or gs:// address, or " if buckets else ""
        raise ConfigError(
            f"{what} must be where every node of the cluster sees it",
            got=place,
            do=f"name {bucket}an absolute path under one of the profile's mounts ({seen})",
        )
    read_only = all(m.read_only for m in mounts if under(path, (m,)))
    if writes and read_only:
        raise ConfigError(f"{what} is on a mount that is read only", got=place)


def _resolved(what: str, path: str, profile: Profile) -> str:
    for spelling in (f"${{{_DATA}}}", f"${_DATA}"):
        if path.startswith(spelling):
            root = profile.env.get(_DATA)
            if root is None:
                raise ConfigError(
                    f"{what} refers to {_DATA}, which the profile does not set",
                    got=path,
                    do=f"add env: {{{_DATA}: /path/on/the/nodes}}",
                )
            return root.rstrip("/") + path.removeprefix(spelling)
    return path
