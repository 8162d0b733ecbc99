"""Files of prompts for `raycl synth`, of which no picture is drawn here; captions of folders."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from raycl.synthesis.prompts import read_prompts
from tests.fuzz.asking import desk, examples, refused_in_words
from tests.fuzz.hostile import honest_names, junk, leaves, names

COLUMNS = ("prompt", "seed", "label", "Prompt", "promt", "")
rows = st.lists(
    st.dictionaries(st.one_of(st.sampled_from(COLUMNS), names), leaves, max_size=4), max_size=4
)


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    fields = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, escapechar="\\")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row, default=str) for row in rows).encode()


def as_text(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(str(v) for row in rows for v in row.values()).encode("utf-8", "surrogatepass")


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(pa.Table.from_pylist(rows), sink)
    except (pa.ArrowException, OverflowError, TypeError, UnicodeError, ValueError):
        return b"PAR1"
    return bytes(sink.getvalue())


FORMS = [(".csv", as_csv), (".jsonl", as_lines), (".txt", as_text), (".parquet", as_parquet)]


@examples(100)
@given(rows=rows, form=st.sampled_from(FORMS), seed=st.sampled_from([0, 2**70]))
def test_prompts(rows: list[dict[str, Any]], form: Any, seed: int) -> None:
    suffix, written = form
    with desk() as here, refused_in_words():
        asked = read_prompts(here.write(f"x{suffix}", written(rows)), seed)
        assert asked.prompts and all(p.text.strip() and p.seed >= 0 for p in asked.prompts)
        assert {len(column) for column in asked.columns.values()} <= {len(asked.prompts)}


@examples(40)
@given(data=junk, suffix=st.sampled_from([".csv", ".jsonl", ".txt", ".parquet", ".x", ""]))
def test_junk(data: bytes, suffix: str) -> None:
    with desk() as here, refused_in_words():
        read_prompts(here.write(f"x{suffix}", data))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".txt", ".parquet", ".x"])
def test_the_command_says_so(suffix: str) -> None:
    with desk() as here:
        here.write(f"x{suffix}", b"\xff\x00")
        assert here.ask("synth", "--prompts", f"x{suffix}", "--out", "drawn").code == 2


folder_names = honest_names.filter(
    lambda name: name.strip() and not set(name) & set("/\0") and name not in (".", "..")
)


@examples(6)
@given(
    classes=st.lists(folder_names, min_size=2, max_size=3, unique=True),
    files=st.lists(st.one_of(st.none(), st.none(), st.none(), junk), min_size=1, max_size=4),
    command=st.sampled_from(["caption", "run"]),
)
def test_folders_of_images(classes: list[str], files: list[bytes | None], command: str) -> None:
    with desk() as here:
        for name in classes:
            folder = here.folder / "photos" / name.encode()[:90].decode(errors="ignore")
            folder.mkdir(parents=True, exist_ok=True)
            for number, data in enumerate([None, None, *files]):
                picture = folder / f"{number}.png"
                if data is None:
                    Image.new("RGB", (9, 9), (number, 9, 99)).save(picture)
                else:
                    picture.write_bytes(data)
        if command == "caption":
            here.ask("caption", "--images", "photos", "--captioner", "template", "--skip-corrupt")
        else:
            here.ask("run", "ncm", "--stream", "folder:photos", "--skip-corrupt")
