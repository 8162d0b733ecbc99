"""The states of a run: large tensors once, each state whole, nothing taken on trust."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raycl.engine.states import NOTES, PARTS, TENSORS, WORTH_BYTES, States
from raycl.store.artefact import ArtefactSpec
from raycl.store.collect import collect
from raycl.store.store import Store
from tests.engine.worlds import World, numbers

ROWS = WORTH_BYTES // 4


def naming(task: int) -> ArtefactSpec:
    named = {"task": task}
    return ArtefactSpec("state", "made", named, named, revision=1, parents=())


def states(store: Store) -> States:
    return States(store, naming)


def put(kept: States, task: int, state: dict[str, torch.Tensor]) -> None:
    payloads = kept.payloads(task, state, {"at": task})
    kept.store.put(naming(task), payloads, needs=kept.needs())


def grown(task: int) -> dict[str, torch.Tensor]:
    """As generators grow: one more each task, beside something that is trained again."""
    banks = {f"bank.{t}": torch.full((ROWS,), float(t)) for t in range(task + 1)}
    return {**banks, "head": torch.full((ROWS + 1,), 100.0 + task), "small": torch.ones(3)}


def test_a_large_tensor_is_written_once(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    kept = states(store)
    for task in range(4):
        put(kept, task, grown(task))
        written = store.get(naming(task), only=(TENSORS,))
        assert written is not None
        assert set(written[TENSORS]) == {f"bank.{task}", "head", "small"}
    for task in range(4):
        found = states(store).get(task)
        assert found is not None
        state, notes = found
        assert notes == {"at": task} and state.keys() == grown(task).keys()
        assert all(torch.equal(state[n], t) for n, t in grown(task).items())


def test_whoever_goes_on_from_a_stored_state_writes_no_more_than_the_first(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    put(states(store), 0, grown(0))
    other = states(store)
    assert other.get(0) is not None
    put(other, 1, grown(1))
    written = store.get(naming(1), only=(TENSORS,))
    assert written is not None and "bank.0" not in written[TENSORS]


def test_a_tensor_that_is_changed_in_place_is_written_again(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    kept, state = states(store), grown(0)
    put(kept, 0, state)
    state["bank.0"][7] = -1.0
    put(kept, 1, state)
    found = states(store).get(1)
    assert found is not None and float(found[0]["bank.0"][7]) == -1.0


@pytest.mark.parametrize("how", ["gone", "other"])
def test_a_state_without_its_parts_counts_as_not_there(tmp_path: Path, how: str) -> None:
    store = Store.open(str(tmp_path))
    kept = states(store)
    put(kept, 0, grown(0))
    put(kept, 1, grown(1))
    if how == "gone":
        store.discard(naming(0))
    else:
        put(states(store), 0, {**grown(0), "bank.0": torch.ones(ROWS)})
    assert states(store).get(1) is None


def test_a_state_of_before_parts_were_kept_is_read(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.put(naming(0), {TENSORS: grown(0), NOTES: {"at": 0}})
    found = states(store).get(0)
    assert found is not None and found[0].keys() == grown(0).keys()
    assert PARTS not in (store.get(naming(0)) or {})


def test_the_collector_keeps_what_the_last_state_and_the_result_are_made_of(tmp_path: Path) -> None:
    big = "method.generator={kind: vae, epochs: 2, hidden: 256, latent: 64}"
    world = World(tmp_path, classes=6)
    first = world.run("cgil", big)
    store = Store.open(str(world.store))
    generators = {r.key for r in store.records("generator")}
    assert len(generators) == 6
    collect(store, delete=True, older_than=0.0, grace=0.0)
    assert {r.key for r in store.records("generator")} == generators
    (last,) = [r for r in store.records("state") if r.described["task"] == 2]
    assert {r.described["task"] for r in store.records("state")} == {0, 1, 2}
    for record in store.records("predictions"):
        store.discard(record.key)
    (result,) = store.records("result")
    store.discard(result.key)
    again = world.run("cgil", big)
    assert numbers(again) == numbers(first)
    assert again.computed.get("generator", 0) == 0
    assert last.key in {r.key for r in store.records("state")}
