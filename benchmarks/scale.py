"""What grows with the number of workers, artefacts, journal events and shared packs.

Expectation, written before measuring: a driver pays a fixed cost per item and something for
every call that it waits on, so milliseconds per item should grow linearly and slowly with the
workers; listing and collecting should be linear in the artefacts, at some 50 to 100
microseconds each on a local disk; looking up one artefact, as a run that continues does for
each task, should not depend on how many there are; a pack of the manifest should cost one call
and one `ray.put`, some milliseconds, however many it holds.

    python benchmarks/scale.py [--quick] [--only workers|store|journal|manifest]

No-op items: what is measured is dispatch, not work. `ratio` is the time of one look-up among
all artefacts against one among the fewest.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from raycl.compute.pool import Resources, WorkerSpec
from raycl.replay.packs import Manifest, Recipe, mirror, recipe_of
from raycl.store.artefact import ArtefactSpec
from raycl.store.collect import collect
from raycl.store.store import Store

WORKERS, QUICK_WORKERS = (1, 4, 16, 64), (1, 2)
ARTEFACTS, QUICK_ARTEFACTS = (1_000, 10_000, 100_000), (100, 1_000)
PACKS, QUICK_PACKS = (1_000, 10_000), (50, 200)
EVENTS, QUICK_EVENTS = (1_000, 10_000), (100, 500)
ITEMS_A_WORKER, LEAST_ITEMS = 50, 1_000
KEPT = 0.5
"""Share of the artefacts that a result needs; the rest is garbage once it is old."""


class Nothing:
    """A worker without work."""

    def __call__(self, item: int) -> int:
        return item


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Of the line through all points."""
    return float(np.polyfit(xs, ys, 1)[0])


# Workers


def dispatch(counts: Sequence[int]) -> dict[str, Any]:
    """Milliseconds that the driver spends per item, by how many workers it feeds."""
    from raycl.compute.ray_pool import RayPool
    from raycl.compute.ray_session import connect

    rows = []
    with connect(num_cpus=max(counts)):
        for workers in counts:
            items = max(LEAST_ITEMS, ITEMS_A_WORKER * workers)
            with RayPool(workers=workers, resources=Resources(cpus=1)) as pool:
                spec = WorkerSpec(Nothing)
                start = seconds(
                    lambda p=pool, s=spec, w=workers: list(p.map_unordered(s, range(4 * w)))
                )
                cpu = time.process_time()
                taken = seconds(lambda p=pool, s=spec, n=items: list(p.map_unordered(s, range(n))))
                cpu = time.process_time() - cpu
            row = {"workers": workers, "items": items, "start_s": start}
            rows.append({**row, "wall_ms": 1000 * taken / items, "driver_ms": 1000 * cpu / items})
    each = slope([r["workers"] for r in rows], [1000 * r["driver_ms"] for r in rows])
    return {"rows": rows, "driver_us_per_item_per_worker": each}


# A store


def artefact(i: int) -> ArtefactSpec:
    return ArtefactSpec("bench", f"class {i % 1000}", {"i": i}, {"i": i})


def storing(counts: Sequence[int]) -> dict[str, Any]:
    """Seconds to make, list, collect and continue, by how many artefacts there are."""
    rows, made = [], 0
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(folder)
        for count in counts:
            needs = [artefact(i).key for i in range(int(KEPT * count))]
            took = seconds(lambda a=made, b=count: [_put(store, i) for i in range(a, b)])
            root = ArtefactSpec("result", "all", {"n": count}, {"n": count})
            store.put(root, {"x.json": 1}, needs=needs)
            row = {"artefacts": count, "put_ms": 1000 * took / (count - made)}
            made = count
            cpu = time.process_time()
            row["ls_s"] = seconds(lambda: sorted(store.records(), key=lambda r: r.created))
            row["ls_cpu_ms_each"] = 1000 * (time.process_time() - cpu) / count
            garbage: list[Any] = []
            row["gc_s"] = seconds(lambda g=garbage: g.extend(collect(store, older_than=-1.0)))
            assert len(garbage) == count - len(needs), len(garbage)
            looked = range(0, count, max(1, count // 200))
            row["has_ms"] = 1000 * statistics.median(
                seconds(lambda i=i: store.has(artefact(i))) for i in looked
            )
            rows.append(row)
    xs = [row["artefacts"] for row in rows]
    out: dict[str, Any] = {"rows": rows}
    for name in ("ls_s", "gc_s"):
        out[f"{name.removesuffix('_s')}_us_per_artefact"] = 1e6 * slope(xs, [r[name] for r in rows])
    return {**out, "ratio": rows[-1]["has_ms"] / rows[0]["has_ms"]}


def _put(store: Store, i: int) -> None:
    store.put(artefact(i), {"x.json": i})


# A journal


def journalling(counts: Sequence[int]) -> dict[str, Any]:
    """Seconds to read a journal again, one object per event and folded."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            journal = Store.open(folder).journal(f"of {count}")
            took = seconds(lambda j=journal, n=count: [j.append({"i": i}) for i in range(n)])
            row = {"events": count, "append_ms": 1000 * took / count}
            row["read_s"] = seconds(journal.read)
            journal.compact()
            row["folded_s"] = seconds(journal.read)
            rows.append(row)
    each = slope([r["events"] for r in rows], [1e6 * r["read_s"] for r in rows])
    return {"rows": rows, "read_us_per_event": each}


# The manifest of shared packs


def manifesting(counts: Sequence[int]) -> dict[str, Any]:
    """Milliseconds to ask for a pack the first time and again, and the bytes of a manifest."""
    from raycl.compute.ray_pool import RayPool
    from raycl.compute.ray_session import connect

    rows = []
    with tempfile.TemporaryDirectory() as folder, connect(num_cpus=1, object_store_mib=500):
        store = Store.open(folder)
        recipes = [_recipe(store, i) for i in range(max(counts))]
        with RayPool(workers=1) as pool:
            for count in counts:
                service = pool.service(f"manifest-{count}", WorkerSpec(Manifest, (folder, "ray")))
                before = _resident(service.call("process"))
                asked = recipes[:count]
                first = seconds(lambda s=service, a=asked: [s.call("pack", r, True) for r in a])
                again = seconds(lambda s=service, a=asked: [s.call("pack", r, True) for r in a])
                grown = _resident(service.call("process")) - before
                assert service.call("metrics")["packs"] == count
                row = {"packs": count, "first_ms": 1000 * first / count}
                rows.append({**row, "again_ms": 1000 * again / count, "kib_each": grown / count})
                service.end()
    return {"rows": rows}


def _recipe(store: Store, i: int) -> Recipe:
    """A pack of its own content, in the store."""
    matrix = np.full((4, 16), i, np.float32)
    whole = mirror(store, recipe_of((), matrix), matrix)
    return Recipe((), whole.rows, whole.width, whole.dtype, whole.content, mirrored=True)


def _resident(pid: int) -> float:
    """KiB of memory of a process's own, where the system tells; shared memory left out."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return float(next(x for x in lines if x.startswith("RssAnon")).split()[1])
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["workers", "store", "journal", "manifest"])
    asked = parser.parse_args()
    quick, only = asked.quick, asked.only
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "store": lambda: storing(QUICK_ARTEFACTS if quick else ARTEFACTS),
        "journal": lambda: journalling(QUICK_EVENTS if quick else EVENTS),
        "manifest": lambda: manifesting(QUICK_PACKS if quick else PACKS),
        "workers": lambda: dispatch(QUICK_WORKERS if quick else WORKERS),
    }
    found = {name: part() for name, part in parts.items() if only in (None, name)}
    print(
        json.dumps(
            {
                "name": "scale",
                **found,
                "ratio": found.get("store", {}).get("ratio"),
                "load": os.getloadavg()[0],
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "versions": {name: version(name) for name in ("ray", "numpy")},
            }
        )
    )


if __name__ == "__main__":
    main()
