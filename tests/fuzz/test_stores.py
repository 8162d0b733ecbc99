"""Stores in which something lies that raycl never wrote, or wrote and lost a part of."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.asking import desk, examples
from tests.fuzz.hostile import junk, values
from tests.streams.made_sets import arrays, save_npz

READERS = (
    ("report",), ("store", "ls"), ("store", "ls", "--json"), ("store", "verify"), ("store", "pins"),
    ("store", "gc", "--older-than", "0s"), ("store", "gc", "--older-than", "0s", "--delete"),
    ("report", "--html", "page.html"), ("table",), ("store", "ls", "result"),
)  # fmt: skip
garbage = st.one_of(junk, values.map(lambda value: json.dumps(value, default=str).encode()))
PLACES = (
    "artefacts/x", "artefacts/result/x", "artefacts/result/x/record.json", "pins/x.json", "x",
    f"artefacts/result/x/{'0' * 32}/record.json", f"pins/result/x/{'0' * 32}.json",
    f"leases/result/x/{'0' * 32}.json", "pulses/x/y.json", "journals/x/0.json", "logs/x/y.jsonl",
    f"artefacts/state/\x1b[31m/{'0' * 32}/record.json", f"artefacts/../{'0' * 32}/record.json",
)  # fmt: skip


def files_of(store: Path) -> list[Path]:
    return sorted(path for path in store.rglob("*") if path.is_file())


@examples(10)
@given(data=garbage, place=st.sampled_from(PLACES), command=st.sampled_from(READERS))
def test_garbage_beside(data: bytes, place: str, command: tuple[str, ...]) -> None:
    with desk() as here:
        run = ("run", "ncm", "--stream", f"embeddings:{save_npz(here.folder / 's.npz', arrays())}")
        assert here.ask(*run).code == 0
        path = here.folder / "store" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        here.ask(*command)
        assert here.ask(*run).code == 0


@examples(10)
@given(
    data=garbage,
    which=st.integers(0, 1000),
    keep=st.integers(0, 200),
    command=st.sampled_from(READERS),
)
def test_garbage_instead(data: bytes, which: int, keep: int, command: tuple[str, ...]) -> None:
    with desk() as here:
        run = ("run", "ncm", "--stream", f"embeddings:{save_npz(here.folder / 's.npz', arrays())}")
        before = here.ask(*run, "--json")
        files = files_of(here.folder / "store")
        path = files[which % len(files)]
        path.write_bytes(path.read_bytes()[:keep] + data)
        here.ask(*command)
        after = here.ask(*run, "--json")
        assert after.code == 0
        known = json.loads(before.out)["r_seen"]
        assert json.loads(after.out)["r_seen"] == known
