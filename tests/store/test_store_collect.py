"""The garbage collector: what stays, what goes, and why."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from store_specs import paths, spec

from raycl.store import ArtefactSpec, Garbage, Store, collect
from raycl.store import store as store_module


@pytest.fixture
def weeks_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """Artefacts that are stored now are recorded as a month old."""

    class LongAgo(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) - timedelta(days=30)

    monkeypatch.setattr(store_module, "datetime", LongAgo)


def keys(found: list[Garbage]) -> list[str]:
    return sorted(item.key for item in found if item.key)


def left(store: Store) -> list[str]:
    return sorted(record.name for record in store.records())


@pytest.mark.usefixtures("weeks_ago")
def test_what_results_and_pins_need_stays_and_the_rest_goes(store: Store) -> None:
    parts = {name: spec(name) for name in ("mean", "bank", "feature", "pinned-part", "unneeded")}
    parent = parts["feature"].key
    bank = ArtefactSpec("generator", "bank", {"b": 1}, {}, parents=(parent, "a-content-digest"))
    for part in (parts["mean"], parts["feature"], parts["pinned-part"], parts["unneeded"], bank):
        store.put(part, {"a.json": part.name})
    store.put(spec("run", "result"), {"a.json": 1}, needs=[bank.key, parts["mean"].key, "gone/x/0"])
    store.put(spec("state", "task-state"), {}, needs=[parts["pinned-part"].key])
    store.pin(spec("state", "task-state").key, "to look at")

    found = collect(store)
    assert keys(found) == [parts["unneeded"].key]
    assert found[0].bytes == len('"unneeded"') and "no result" in found[0].reason
    assert len(left(store)) == 7, "a dry run deletes nothing"

    assert collect(store, delete=True) == found
    assert left(store) == ["bank", "feature", "mean", "pinned-part", "run", "state"]
    assert collect(store) == []

    store.unpin(spec("state", "task-state").key)
    collect(store, delete=True)
    assert left(store) == ["bank", "feature", "mean", "run"]


def test_an_unfinished_run_stays_resumable_while_it_is_young(store: Store) -> None:
    store.put(spec("state", "task-state"), {"a.json": 1}, needs=[spec("mean").key])
    store.put(spec("mean"), {"a.json": 1})
    assert collect(store, delete=True) == []
    assert len(keys(collect(store, delete=True, older_than=0))) == 2
    assert left(store) == []


def test_what_is_touched_under_a_lease_is_spared_at_every_level(store: Store, uri: str) -> None:
    for name in ("read", "deep", "idle"):
        store.put(spec(name), {"a.json": name})
    collector = Store.open(uri)
    with store.lease(spec("run", "result")):
        store.get(spec("read"))
        with store.lease(spec("inner")):
            store.get(spec("deep"))
            store.put(spec("new"), {"a.json": 1})
        removed = collect(collector, delete=True, older_than=0, grace=0)
    assert keys(removed) == [spec("idle").key]
    assert left(store) == ["deep", "new", "read"]
    assert len(keys(collect(collector, older_than=0))) == 3


def test_a_root_that_appears_before_deleting_is_seen(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.put(spec("wanted"), {"a.json": 1})
    local.put(spec("idle"), {"a.json": 1})
    pins, asked = local.pins, []

    def pins_late() -> dict[str, str]:
        if asked:
            Store.open(local.uri).pin(spec("wanted").key, "just now")
        asked.append(1)
        return pins()

    monkeypatch.setattr(local, "pins", pins_late)
    assert keys(collect(local, delete=True, older_than=0)) == [spec("idle").key]
    assert left(local) == ["wanted"]


def test_what_a_killed_command_asked_the_nodes_goes(store: Store) -> None:
    """It writes a word and has every node read it, and may die before it takes it away."""
    store.location.write("probes/0123456789abcdef", b"word")
    assert collect(store, delete=True) == []
    (gone,) = collect(store, delete=True, grace=-60)
    assert gone.path == "probes/0123456789abcdef" and gone.bytes == 4
    assert list(store.location.files("probes")) == []


def test_files_of_no_record_go_once_they_are_old(store: Store) -> None:
    store.put(spec(), {"a.json": 1})
    orphan = f"artefacts/{spec().key}/0123456789ab-a.json"
    lost = f"artefacts/{spec('cat').key}/0123456789ab-a.json"
    for path in (orphan, lost):
        store.location.write(path, b"12345")
    assert collect(store, delete=True) == []
    with store.lease(spec("cat")):
        found = collect(store, delete=True, grace=-60)
        assert [(item.path, item.bytes) for item in found] == [(orphan, 5)]
    assert [item.path for item in collect(store, delete=True, grace=-60)] == [lost]
    assert store.get(spec()) == {"a.json": 1}


def test_a_damaged_record_goes_with_its_files_once_it_is_old(local: Store) -> None:
    local.put(spec(), {"a.json": 1})
    local.location.write(f"artefacts/{spec().key}/record.json", b"{")
    assert collect(local, delete=True) == []
    assert len(collect(local, delete=True, grace=-60)) == 2
    assert paths(local, "artefacts") == []


def test_half_written_files_go_once_they_are_old_and_folders_are_tidied(local: Store) -> None:
    local.journal("trials").append({"a": 1})
    aside = Path(local.uri, "artefacts", spec().key, ".record.json.0123abcd.tmp")
    aside.parent.mkdir(parents=True)
    aside.write_text("half")
    assert collect(local, delete=True) == []
    long_ago = aside.stat().st_mtime - 7200
    os.utime(aside, (long_ago, long_ago))
    assert [item.reason for item in collect(local, delete=True)] == ["half written"]
    assert not Path(local.uri, "artefacts").exists()
    assert local.journal("trials").read() == [{"a": 1}]


def test_logs_and_foreign_files_are_left_alone(local: Store) -> None:
    local.location.write("logs/run.log", b"log")
    local.location.write("notes.txt", b"mine")
    assert collect(local, delete=True, older_than=0, grace=-60) == []
    assert paths(local, "logs") == ["logs/run.log"]
