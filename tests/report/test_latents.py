"""Real and sampled latents: found through the store, shown as they are, never an error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from made_results import latents, result

from raycl.fitting.worker import NOTES, PICTURES, STEPS, TENSORS
from raycl.report import figures as f
from raycl.report.boards import boards
from raycl.report.clouds import MEAN, SIZE, bounds, panel
from raycl.report.latents import latents_of, with_latents
from raycl.report.page import page
from raycl.report.pictures import drawn
from raycl.store.artefact import ArtefactSpec, Record
from raycl.store.store import Store
from tests.engine.worlds import World

QUICK = ("method.generator.kind=gaussian", "method.align.epochs=1", "method.per_class=8")
MOST = f.MOST_PANELS


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Six classes in three tasks; generators so small that no state needs an earlier one."""
    made = World(tmp_path_factory.mktemp("latents"), classes=6)
    made.run("cgil", *QUICK)
    return made


@pytest.fixture
def run(world: World) -> dict[str, Any]:
    return world.run("cgil", *QUICK).values


@pytest.fixture
def store(world: World, tmp_path: Path) -> Store:
    """A copy that a test may damage."""
    import shutil

    shutil.copytree(world.store, tmp_path / "store")
    return Store.open(str(tmp_path / "store"))


def spec_of(record: Record) -> ArtefactSpec:
    return ArtefactSpec(
        record.kind, record.name, record.identity, record.described, record.revision,
        record.parents,
    )  # fmt: skip


def test_all_classes_of_a_run_are_found_in_the_order_of_learning(
    store: Store, run: dict[str, Any]
) -> None:
    found = latents_of(store, run["key"])
    names = [run["class_names"][c] for task in run["tasks"] for c in task["classes"]]
    assert [one["name"] for one in found] == names and len(set(names)) == 6
    assert [one["task"] for one in found] == [0, 0, 1, 1, 2, 2]
    for one in found:
        (record,) = [r for r in store.records("generator") if r.described["class"] == one["name"]]
        notes = store.read(record)[NOTES]
        (kept,), (note,) = notes[PICTURES], notes["classes"]
        steps = [round(v / kept["unit"] * STEPS) for point in one["real"] for v in point]
        assert steps == list(map(int, kept["real"].split()))
        assert (one["vectors"], one["dispersion"]) == (note["vectors"], note["dispersion"])
        assert len(one["sampled"]) == 64 and one["share"] == kept["share"]


def test_classes_that_share_a_generator_have_each_a_panel(tmp_path: Path) -> None:
    world = World(tmp_path, classes=6)
    shared = "method.generator={kind: shared_vae, epochs: 2, hidden: 8, latent: 4, class_width: 2}"
    run = world.run("cgil", shared, *QUICK[1:]).values
    found = latents_of(Store.open(str(world.store)), run["key"])
    assert {one["name"] for one in found} == set(run["class_names"])
    assert [one["task"] for one in found] == [0, 0, 1, 1, 2, 2]


def test_one_run_of_a_setting_is_shown_and_only_what_has_generators(tmp_path: Path) -> None:
    world = World(tmp_path, classes=4)
    results = [world.run("ncm").values]
    results += [world.run("cgil", *QUICK, seed=seed).values for seed in (4, 3)]
    results.append(world.run("real_replay", "method.align.epochs=1").values)
    shown = with_latents(Store.open(str(world.store)), results)
    assert ["latents" in run for run in shown] == [False, False, True, True]
    assert [{**run, "latents": 0} for run in shown] == [{**run, "latents": 0} for run in results]


@pytest.mark.parametrize("how", ["gone", "damaged", "of old", "state gone"])
def test_what_cannot_be_shown_is_left_out(how: str, store: Store, run: dict[str, Any]) -> None:
    generators = sorted(store.records("generator"), key=lambda r: str(r.described["class"]))
    first = generators[0]
    match how:
        case "gone":
            store.discard(first.key)
        case "damaged":
            (file,) = (store.location.local_root / "artefacts" / first.key).glob(f"*-{NOTES}")
            file.write_bytes(file.read_bytes().replace(b"real", b"rael"))
        case "of old":
            payloads = store.read(first)
            del payloads[NOTES][PICTURES]
            assert TENSORS in payloads
            store.put(spec_of(first), payloads)
        case "state gone":
            (last,) = [r for r in store.records("state") if r.described["task"] == 2]
            store.discard(last.key)
    names = [one["name"] for one in latents_of(store, run["key"])]
    expected = [] if how == "state gone" else [r.described["class"] for r in generators[1:]]
    assert sorted(names) == expected
    assert latents_of(store, "result/none/" + "0" * 32) == []


def test_no_generators_no_figure(store: Store, run: dict[str, Any]) -> None:
    (board,) = boards([run])
    assert not [x for x in f.figures(board) if isinstance(x, f.Latents)]
    assert "Real and sampled latents" not in page([run])
    assert "Real and sampled latents" in page(with_latents(store, [run]))


# The figure


def figure(names: list[str], **changes: Any) -> f.Latents:
    (board,) = boards([result("cgil", latents=latents(names), **changes)])
    (shown,) = [x for x in f.figures(board) if isinstance(x, f.Latents)]
    return shown


def test_it_says_how_many_classes_there_are_more() -> None:
    shown = figure([f"class {c}" for c in range(12)], seed=3)
    assert len(shown.panels) == MOST
    assert shown.note == f"{MOST} of 12 classes in the order of learning, seed 3"
    few = figure([f"class {c}" for c in range(4)], tasks=2, per_task=2)
    assert few.note.startswith("all classes")


def test_every_point_is_inside_and_both_axes_have_one_scale() -> None:
    (one, *_) = figure(["a"]).panels
    (x, y), half = bounds(one)
    for px, py in (MEAN, *one.real, *one.sampled):
        assert abs(px - x) <= half * (1 + 1e-9) and abs(py - y) <= half * (1 + 1e-9)
    svg = panel(one, f.Name("m", 0))
    (real,) = re.findall(r'd="([^"]*)" class="real"', svg)
    rings = [tuple(map(float, place)) for place in re.findall(r"M([\d.]+) ([\d.]+)a", real)]
    assert len(rings) == len(one.real)
    scales = {
        round((rings[i][axis] - rings[j][axis]) / (sign * (one.real[i][axis] - one.real[j][axis])))
        for axis, sign in ((0, 1), (1, -1))
        for i in range(9)
        for j in range(9, 18)
        if abs(one.real[i][axis] - one.real[j][axis]) > 1
    }
    assert len(scales) == 1 and all(0 < rx < SIZE for rx, _ in rings)
    assert svg.count("h0") == len(one.sampled)


def test_a_class_of_one_vector_is_drawn() -> None:
    alone = f.Panel("alone", 0, 1, None, [MEAN], [MEAN] * 64, (0.0, 0.0))
    svg = panel(alone, f.Name("m", 0))
    assert "does not vary" in svg and "1 vector<" in svg and "nan" not in svg
    shown = f.Latents("latents-1", "t", "n", f.Name("m", 0), [alone])
    assert drawn(shown).startswith(b"\x89PNG")


def test_a_picture_for_a_paper() -> None:
    shown = figure([f"class {c}" for c in range(7)])
    assert drawn(shown, "pdf") == drawn(shown, "pdf")
    assert drawn(shown, "pdf").startswith(b"%PDF-")
