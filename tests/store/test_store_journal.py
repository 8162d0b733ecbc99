"""Journals: no event lost, none doubled, whoever appends, compacts, reads or dies."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from store_processes import Start, kill, line
from store_specs import paths

from raycl.observe.events import Warned
from raycl.store import Store


def objects(store: Store) -> list[str]:
    """The objects that hold events."""
    return [path for path in paths(store, "journals") if path.endswith(".json")]


def numbers(events: list[dict[str, Any]]) -> list[int]:
    return [event["n"] for event in events]


def test_events_come_back_in_order_before_and_after_compaction(store: Store, uri: str) -> None:
    journal = store.journal("sweep/slda")
    assert journal.read() == []
    for n in range(6):
        journal.append({"n": n, "params": {"lr": 0.1, "order": [n, None]}})
    before = Store.open(uri).journal("sweep/slda").read()
    assert numbers(before) == list(range(6))
    assert before[2]["params"] == {"lr": 0.1, "order": [2, None]}
    journal.compact()
    assert len(objects(store)) == 1
    assert Store.open(uri).journal("sweep/slda").read() == before
    journal.append({"n": 6})
    journal.compact()
    journal.compact()
    assert numbers(journal.read()) == list(range(7))
    assert len(objects(store)) == 1


def test_equal_events_are_all_kept(store: Store) -> None:
    journal = store.journal("trials")
    for _ in range(3):
        journal.append({"n": 1})
    journal.compact()
    assert numbers(journal.read()) == [1, 1, 1]


def test_journals_of_names_alike_are_apart(local: Store) -> None:
    for name in ("日本", "中国", "a/b", "a-b"):
        local.journal(name).append({"name": name})
    for name in ("日本", "中国", "a/b", "a-b"):
        assert local.journal(name).read() == [{"name": name}]


@pytest.mark.parametrize("event", [{"loss": float("nan")}, {"at": object()}, {1: 2}])
def test_an_event_that_json_cannot_carry_is_refused(local: Store, event: dict[Any, Any]) -> None:
    journal = local.journal("trials")
    with pytest.raises(TypeError):
        journal.append(event)
    assert journal.read() == []


def test_a_compaction_killed_before_it_removed_anything_doubles_nothing(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = local.journal("trials")
    for n in range(5):
        journal.append({"n": n})

    def die(path: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(local.location, "delete", die)
        journal.compact()
    assert len(objects(local)) == 6
    assert numbers(journal.read()) == list(range(5))
    journal.compact()
    assert len(objects(local)) == 1
    assert numbers(journal.read()) == list(range(5))


def test_a_damaged_event_is_told_left_out_and_not_removed(
    local: Store, events: list[object]
) -> None:
    journal = local.journal("trials")
    for n in range(4):
        journal.append({"n": n})
    damaged = objects(local)[1]
    data = (local.location.read(damaged) or b"").replace(b'"n": 1', b'"n": 7')
    local.location.write(damaged, data)
    assert numbers(journal.read()) == [0, 2, 3]
    journal.compact()
    assert numbers(journal.read()) == [0, 2, 3]
    assert damaged in objects(local)
    assert [damaged in event.message for event in events if isinstance(event, Warned)] == [True]


@pytest.mark.parametrize("folded", [False, True])
def test_a_journal_may_end_before_what_was_damaged(local: Store, folded: bool) -> None:
    """Killed on the way, it is done again; what comes later is appended to what is left."""
    journal = local.journal("trials")
    for n in range(5):
        journal.append({"n": n})
        if folded and n == 1:
            journal.compact()
    path = next(p for p in objects(local) if "fold-" in p) if folded else objects(local)[3]
    local.location.write(path, b"")
    left = [] if folded else [0, 1, 2]
    assert numbers(journal.read_to_damage()) == left
    assert len(journal.read()) == (3 if folded else 4), "events that stand alone are all kept"
    again = Store.open(local.uri).journal("trials")
    again.cut_at_damage()
    assert numbers(again.read()) == numbers(again.read_to_damage()) == left
    again.append({"n": 9})
    again.cut_at_damage()
    assert numbers(Store.open(local.uri).journal("trials").read_to_damage()) == [*left, 9]
    assert path not in objects(local)


def test_a_journal_whose_end_is_cut_off_may_die_meanwhile(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(6):
        local.journal("trials").append({"n": n})
    local.location.write(objects(local)[2], b"[]")
    delete = local.location.delete
    for deaths in range(8):
        left = iter(range(deaths))

        def die(path: str, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            delete(path)

        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(local.location, "delete", die)
            local.journal("trials").cut_at_damage()
        assert numbers(Store.open(local.uri).journal("trials").read_to_damage()) == [0, 1]
    assert numbers(local.journal("trials").read()) == [0, 1]


def test_two_compactors_a_reader_and_appenders_at_once(local: Store) -> None:
    total, done = 150, threading.Event()

    def compact() -> None:
        journal = Store.open(local.uri).journal("trials")
        while not done.is_set():
            journal.compact()

    compactors = [threading.Thread(target=compact) for _ in range(2)]
    for thread in compactors:
        thread.start()
    journal, reader = local.journal("trials"), Store.open(local.uri).journal("trials")
    try:
        for n in range(total):
            journal.append({"n": n})
            assert numbers(reader.read()) == list(range(n + 1))
    finally:
        done.set()
        for thread in compactors:
            thread.join()
    assert numbers(reader.read()) == list(range(total))


def test_killed_appenders_and_compactors_lose_and_double_nothing(
    start: Start, local: Store
) -> None:
    writers = [start("append", local.uri) for _ in range(2)]
    said = {writer.pid: int(line(writer)) for writer in writers}
    for _ in range(3):
        compactors = [start("compact", local.uri) for _ in range(2)]
        assert [line(compactor) for compactor in compactors] == ["compacting"] * 2
        for writer in writers:
            while said[writer.pid] % 20 != 19:
                said[writer.pid] = int(line(writer))
            said[writer.pid] = int(line(writer))
        for compactor in compactors:
            kill(compactor)
    for writer in writers:
        writer.kill()
        rest = writer.communicate()[0].split("\n")[:-1]
        said[writer.pid] = int(rest[-1]) if rest else said[writer.pid]
    events = Store.open(local.uri).journal("dog").read()
    for pid, last in said.items():
        mine = [event["n"] for event in events if event["pid"] == pid]
        assert mine == list(range(len(mine)))
        # One may be there that its writer had no time to tell of.
        assert len(mine) in (last + 1, last + 2)
