"""What every store keeps to, in a local folder as in a bucket."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from store_specs import paths, payload_paths, spec

from raycl.errors import StaleArtefactError, StoreError
from raycl.observe.events import Computed, Reused, Warned
from raycl.store import ArtefactSpec, Store


def warnings_in(events: list[object]) -> list[str]:
    return [event.message for event in events if isinstance(event, Warned)]


def test_payloads_of_every_format_come_back_as_they_went_in(store: Store, uri: str) -> None:
    table = pa.table({"row": pa.array([1, 2, 3]), "vector": pa.array([[0.5, 1.5]] * 3)})
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    tensors = {"mean": base, "turned": base.T, "row": base[1], "half": base.to(torch.bfloat16)}
    payloads = {
        "rows.parquet": table,
        "rows.arrow": table,
        "bank.safetensors": tensors,
        "about.json": {"accuracy": [0.1, None], "name": "日本"},
        "method.py": "x = 1\n",
        "notes.txt": "",
        "raw.bin": bytes(range(256)),
    }
    store.put(spec(), payloads)
    found = Store.open(uri).get(spec())
    assert found is not None
    assert found["rows.parquet"].equals(table) and found["rows.arrow"].equals(table)
    assert {k: v.tolist() for k, v in found["bank.safetensors"].items()} == {
        k: v.tolist() for k, v in tensors.items()
    }
    plain = ("about.json", "method.py", "notes.txt", "raw.bin")
    assert {name: found[name] for name in plain} == {name: payloads[name] for name in plain}


def test_what_was_never_stored_is_absent(store: Store) -> None:
    assert not store.has(spec())
    assert store.get(spec()) is None
    assert store.record(spec()) is None
    assert list(store.records()) == []
    store.discard(spec())


def test_a_put_replaces_the_older_artefact_and_its_files(store: Store) -> None:
    store.put(spec(), {"a.json": 1, "b.json": 2})
    store.put(spec(), {"a.json": 3})
    assert store.get(spec()) == {"a.json": 3}
    assert len(paths(store, f"artefacts/{spec().key}")) == 2


def test_discard_leaves_nothing(store: Store) -> None:
    store.put(spec(), {"a.json": 1})
    store.discard(spec())
    assert not store.has(spec())
    assert paths(store, "artefacts") == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pickle.pkl", b""),
        ("../climb.json", 1),
        (".hidden.json", 1),
        ("a/b.json", 1),
        ("nan.json", float("nan")),
        ("array.json", np.zeros(2)),
        ("keys.json", {1: "one"}),
        ("text.txt", 7),
    ],
)
def test_what_cannot_be_stored_exactly_is_refused(local: Store, name: str, value: Any) -> None:
    with pytest.raises(StoreError) as caught:
        local.put(spec(), {"good.json": 1, name: value})
    assert repr(name) in str(caught.value) and caught.value.do
    assert paths(local, "artefacts") == []


def test_get_or_make_makes_once_and_says_so(store: Store, uri: str, events: list[object]) -> None:
    assert store.get_or_make(spec(), lambda: {"a.json": [1]}, needs=lambda: ["x"]) == {
        "a.json": [1]
    }
    again = Store.open(uri, events.append)
    assert again.get_or_make(spec(), lambda: pytest.fail("made twice")) == {"a.json": [1]}
    assert (store.computed, store.reused) == ({"generator": 1}, {})
    assert (again.computed, again.reused) == ({}, {"generator": 1})
    assert [type(event) for event in events] == [Computed, Reused]
    assert paths(store, "leases") == []


def test_a_failing_make_stores_nothing_and_frees_the_lease(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        store.get_or_make(spec(), lambda: {"a.json": 1 / 0})
    assert not store.has(spec())
    assert store.get_or_make(spec(), lambda: {"a.json": 2}) == {"a.json": 2}


def test_an_artefact_that_needs_itself_is_a_bug_not_a_wait(local: Store) -> None:
    def forever() -> dict[str, Any]:
        return local.get_or_make(spec(), forever)

    with pytest.raises(AssertionError, match="to make itself"):
        local.get_or_make(spec(), forever)


def test_a_record_tells_how_the_artefact_was_made(store: Store) -> None:
    wanted = ArtefactSpec(
        "task-state", "slda seed 0", {"lr": 0.1}, {"lr": 0.1, "epochs": 3}, 2, ("abc",)
    )
    store.get_or_make(wanted, lambda: {"a.json": 1}, needs=["generator/dog/1"])
    record = store.record(wanted.key)
    assert record is not None and record == store.record(wanted)
    assert (record.kind, record.name, record.revision) == ("task-state", "slda seed 0", 2)
    assert (record.described, record.parents) == ({"lr": 0.1, "epochs": 3}, ("abc",))
    assert record.needs == ("generator/dog/1",)
    assert record.payloads["a.json"].bytes == record.total_bytes == 1
    assert set(record.versions) == {"python", "raycl"}


def test_records_are_listed_by_kind(store: Store) -> None:
    for kind, name in [("generator", "cat"), ("generator", "dog"), ("result", "cat")]:
        store.put(spec(name, kind), {})
    assert sorted(r.name for r in store.records("generator")) == ["cat", "dog"]
    assert len(list(store.records())) == 3
    assert list(store.records("gener")) == []
    with pytest.raises(StoreError, match="not a kind"):
        list(store.records("../generator"))


def test_a_flipped_byte_in_a_payload_is_found_told_and_made_again(
    store: Store, events: list[object]
) -> None:
    store.put(spec(), {"a.bin": b"0123456789"})
    (path,) = payload_paths(store, spec())
    store.location.write(path, b"0123856789")
    assert [problem.file for problem in store.verify()] == [path]
    assert store.has(spec())
    assert store.get(spec()) is None
    assert len(warnings_in(events)) == 1 and path in warnings_in(events)[0]
    assert store.get_or_make(spec(), lambda: {"a.bin": b"new"}) == {"a.bin": b"new"}
    assert list(store.verify()) == []


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_payload_cut_short_or_lost_is_not_a_hit(store: Store, damage: str) -> None:
    store.put(spec(), {"a.bin": b"0123456789", "b.json": 1})
    path = payload_paths(store, spec())[0]
    store.location.delete(path)
    if damage == "truncated":
        store.location.write(path, b"01234")
    assert not store.has(spec())
    assert [problem.file for problem in store.verify()] == [path]
    assert store.get(spec()) is None
    assert store.record(spec()) is None


def test_no_flipped_byte_in_a_record_goes_unnoticed(local: Store) -> None:
    local.put(spec(), {"a.json": 1})
    path = f"artefacts/{spec().key}/record.json"
    whole, record = local.location.read(path), local.record(spec())
    assert whole is not None
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        local.location.write(path, bytes(damaged))
        assert local.record(spec()) in (None, record)
        # Only white space may change and leave a record as it was.
        assert local.record(spec()) is None or whole[place : place + 1].isspace()


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
def test_a_record_cut_short_counts_as_absent(store: Store, cut: int, events: list[object]) -> None:
    store.put(spec(), {"a.json": 1})
    path = f"artefacts/{spec().key}/record.json"
    store.location.write(path, (store.location.read(path) or b"")[:cut])
    assert not store.has(spec())
    assert list(store.records()) == []
    assert [problem.file for problem in store.verify()] == [path]
    assert spec().key in warnings_in(events)[0]
    assert store.get_or_make(spec(), lambda: {"a.json": 2}) == {"a.json": 2}


def test_the_record_of_another_key_is_not_believed(local: Store) -> None:
    local.put(spec("cat"), {"a.json": "cat"})
    stolen = local.location.read(f"artefacts/{spec('cat').key}/record.json")
    assert stolen is not None
    local.location.write(f"artefacts/{spec('dog').key}/record.json", stolen)
    assert local.get(spec("dog")) is None
    assert [problem.key for problem in local.verify()] == [spec("dog").key]


def test_a_reader_that_meets_a_replaced_artefact_reads_the_new_one(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.put(spec(), {"a.json": "old"})
    read, replaced = local.location.read, []

    def read_late(path: str) -> bytes | None:
        if path.endswith("-a.json") and not replaced:
            replaced.append(path)
            Store.open(local.uri).put(spec(), {"a.json": "new"})
        return read(path)

    monkeypatch.setattr(local.location, "read", read_late)
    assert local.get(spec()) == {"a.json": "new"}


def test_a_record_replaced_while_it_is_read_is_read_again(
    local: Store, monkeypatch: pytest.MonkeyPatch, events: list[object]
) -> None:
    local.put(spec(), {"a.json": 1})
    read, torn = local.location.read, []

    def read_torn(path: str) -> bytes | None:
        data = read(path)
        if data and not torn:
            torn.append(path)
            return data[:-20]
        return data

    monkeypatch.setattr(local.location, "read", read_torn)
    assert local.get(spec()) == {"a.json": 1}
    assert torn and not events


def described(**values: Any) -> ArtefactSpec:
    return ArtefactSpec("result", "run", {"kind": "slda"}, {"kind": "slda", **values})


def test_a_hit_made_with_another_default_is_an_error_that_shows_it(store: Store) -> None:
    store.put(described(align={"lr": 0.1, "epochs": 3}, order=[1, 2]), {"a.json": 1})
    asked = described(align={"lr": 0.2, "epochs": 3}, order=[2, 1])
    for lookup in (store.get, lambda s: store.get_or_make(s, dict)):
        with pytest.raises(StaleArtefactError) as caught:
            lookup(asked)
        assert caught.value.got == (
            "align.lr: stored 0.1, asked 0.2; order: stored [1, 2], asked [2, 1]"
        )
        assert "revision" in str(caught.value.do) and "another store" in str(caught.value.do)


def test_a_hit_with_fields_that_only_one_side_has_is_a_hit(store: Store) -> None:
    store.put(described(lr=0.1, gone=1), {"a.json": 1})
    assert store.get(described(lr=0.1, added=2)) == {"a.json": 1}


def test_pins_say_why(store: Store, uri: str) -> None:
    store.put(spec(), {})
    store.pin(spec().key, "for the paper")
    assert Store.open(uri).pins() == {spec().key: "for the paper"}
    store.unpin(spec().key)
    store.unpin(spec().key)
    assert store.pins() == {}


def test_only_what_is_stored_can_be_pinned(local: Store) -> None:
    for key in (spec().key, "generator/dog", "../../etc"):
        with pytest.raises(StoreError) as caught:
            local.pin(key, "typing error")
        assert key in str(caught.value)
    assert local.pins() == {}


def test_threads_of_one_store_make_one_artefact_once(store: Store) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def make() -> dict[str, Any]:
        return {"a.json": sum(store.computed.values())}

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: store.get_or_make(spec(), make), range(8)))
    assert found == [{"a.json": 0}] * 8
    assert (store.computed["generator"], store.reused["generator"]) == (1, 7)
