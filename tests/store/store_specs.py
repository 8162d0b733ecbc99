"""Small artefact specs for the tests of the store."""

from __future__ import annotations

from typing import Any

from raycl.store import ArtefactSpec, Store


def spec(name: str = "dog", kind: str = "generator", **identity: Any) -> ArtefactSpec:
    identity = {"name": name, **identity}
    return ArtefactSpec(kind, name, identity, identity)


def payload_paths(store: Store, wanted: ArtefactSpec) -> list[str]:
    """Where the payloads of a stored artefact lie."""
    record = store.record(wanted)
    assert record is not None
    return [f"artefacts/{wanted.key}/{payload.file}" for payload in record.payloads.values()]


def paths(store: Store, under: str) -> list[str]:
    return sorted(file.path for file in store.location.files(under))
