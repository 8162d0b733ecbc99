"""The soak itself: that it notices what must not be, and runs to its end."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from raycl.store.store import Store
from tests.store.store_specs import spec

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the soak adopts orphans: Linux")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store.open(str(tmp_path))
    for name in ("a", "b"):
        found.put(spec(name), {"words.txt": f"of {name}", "notes.json": {"seconds": time.time()}})
    return found


def flipped(store: Store, name: str) -> str:
    from soaking.faults import damage

    (file,) = (Path(store.uri) / "artefacts" / spec(name).key).glob("*words.txt")
    damage(file, "flipped", random.Random(0))
    return spec(name).key


def test_a_result_that_differs_in_one_place_is_told_where() -> None:
    from soaking.verdict import differences

    calm = {"metrics": {"last": 50.0, "why": None}, "r_seen": [[1.0], [2.0]]}
    assert list(differences(calm, json.loads(json.dumps(calm)))) == []
    other = {"metrics": {"last": 50.1}, "r_seen": [[1.0], [2.0]], "more": 1}
    found = list(differences(calm, other))
    assert [text.split()[0].rstrip(":") for text in found] == [
        "metrics.last",
        "metrics.why",
        "more",
    ]


def test_stores_are_compared_by_their_payloads(store: Store, tmp_path: Path) -> None:
    from soaking.verdict import payloads, store_differences

    calm = payloads(tmp_path)
    assert {name for names in calm.values() for name in names} == {"words.txt"}
    store.put(spec("a"), {"words.txt": "others", "notes.json": {}})
    store.put(spec("c"), {"words.txt": "new"})
    store.discard(spec("b"))
    found = list(store_differences(calm, tmp_path, set()))
    assert len(found) == 3 and any("is missing" in text for text in found)
    assert len(list(store_differences(calm, tmp_path, {spec("b").key}))) == 2


def test_damage_is_seen_unless_it_is_ours(store: Store, tmp_path: Path) -> None:
    from soaking.verdict import unsound

    key = flipped(store, "a")
    assert len(list(unsound(tmp_path, set()))) == 1 and not list(unsound(tmp_path, {key}))


def test_what_is_made_is_known_with_its_maker_while_it_is_made(
    store: Store, tmp_path: Path
) -> None:
    from soaking.faults import in_the_making

    with store.lease(spec("c")):
        assert in_the_making(tmp_path) == {spec("c").key: os.getpid()}
    assert in_the_making(tmp_path) == {}


def test_what_stays_behind_is_told(store: Store, tmp_path: Path) -> None:
    from soaking.verdict import left_behind

    store.location.write("leases/mean/x/dead.json", b"{")
    assert list(left_behind(tmp_path)) == [], "the garbage collector takes what is no claim"
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "x.tmp").touch()
    assert list(left_behind(tmp_path)) == ["left in the store: logs/x.tmp"]


def test_every_kind_of_fault_has_a_job_that_can_meet_it(tmp_path: Path) -> None:
    from soaking.faults import KINDS, MEANING, suits
    from soaking.jobs import QUICK, made_jobs

    jobs = made_jobs(tmp_path)
    assert len({job.name for job in jobs}) == len(jobs) and set(MEANING) == set(KINDS)
    quick = [job for job in jobs if job.name in QUICK]
    assert len(quick) == len(QUICK)
    assert all(any(suits(kind, job) for job in quick) for kind in KINDS)


@pytest.mark.ordeal
@pytest.mark.ray
@pytest.mark.timeout(3600)
def test_quickly_each_kind_of_fault_leaves_every_result_as_it_was() -> None:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "soak.py"), "--quick", "--json"],
        capture_output=True,
        text=True,
        timeout=3500,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    from soaking.faults import KINDS

    assert told["not_good"] == []
    done = {row["kind"] for row in told["by_kind"]}
    assert done == set(KINDS) - set(told["skipped"])
