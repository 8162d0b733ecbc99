"""Hostile names in what people read: pages, tables of LaTeX and Markdown, the terminal."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from raycl.report.boards import boards
from raycl.report.latex import escaped, to_latex
from raycl.report.leaderboard import leaderboard, to_csv, to_markdown, write_parquet
from raycl.report.page import page
from tests.fuzz.asking import assert_plain, desk, examples
from tests.fuzz.hostile import honest_names, names
from tests.report.made_results import result
from tests.streams.made_sets import arrays, save_npz


class Reader(HTMLParser):
    """What a browser would find: which elements, and whether anything runs or is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.bad: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            runs = name.startswith("on") or "javascript:" in (value or "").lower()
            if runs or name == "src" or (name == "href" and not str(value).startswith("#")):
                self.bad.append(f"{tag} {name}={value}")


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


USUAL = read(page([result(warnings=["w"]), result(label="b", seed=1)], "title"))
few_names = st.lists(names, min_size=4, max_size=4)


@examples(25)
@given(title=names, label=names, stream=names, backbone=names, classes=few_names, why=names)
def test_a_page_and_its_tables(
    title: str, label: str, stream: str, backbone: str, classes: list[str], why: str
) -> None:
    one = result(label=label, tasks=2, per_task=2, names=classes, backbone=backbone)
    odd = {"warnings": [why], "stream": stream, "stream_label": f"{stream}, 2 tasks"}
    odd |= {"device": why, "contents": [stream], "versions": {label or "x": why}}
    odd["why_null"] = dict.fromkeys(one["why_null"], why)
    results: list[dict[str, Any]] = [{**one, **odd}, {**one, **odd, "key": why, "label": "b"}]
    found = read(page(results, title))
    assert not found.bad
    assert found.tags.keys() <= USUAL.tags.keys()
    assert found.tags["script"] == USUAL.tags["script"]
    check_latex(to_latex(boards(results)))
    check_tables(results)


def check_latex(text: str) -> None:
    """Every line of the table has its columns, every brace its twin, no comment eats the rest."""
    plain = re.sub(r"\\[{}%&_#$\\]", "", text.split("\n", 1)[1])
    assert "%" not in plain.replace("% \\usepackage{booktabs}", "")
    assert plain.count("{") == plain.count("}")
    assert not re.search(r"\\(input|include|write|def|catcode|immediate)\b", text)
    assert_plain(text)


def check_tables(results: list[dict[str, Any]]) -> None:
    rows = leaderboard(results)
    lines = list(csv.reader(io.StringIO(to_csv(rows), newline="")))
    assert {len(line) for line in lines} == {len(lines[0])}
    markdown = [line for line in to_markdown(rows).split("\n") if line.startswith("|")]
    bars = {len(re.findall(r"(?<!\\)\|", line)) for line in markdown}
    assert len(bars) == 1, markdown
    assert_plain(to_markdown(rows))
    with desk() as here:
        write_parquet(rows, here.folder / "rows.parquet")
        with pq.ParquetFile(here.folder / "rows.parquet") as file:
            assert file.metadata.num_rows == len(rows)


@examples(200)
@given(text=st.one_of(names, st.text()))
def test_latex_is_escaped(text: str) -> None:
    shown = escaped(text)
    assert not re.search(r"(?<!\\)[&%#_]", shown.replace(r"\_", "").replace(r"\\", ""))
    assert_plain(shown)


@examples(3)
@given(
    classes=st.lists(honest_names, min_size=3, max_size=3),
    file=honest_names.filter(lambda name: name.strip(". ") and not set(name) & set("/\0+")),
    title=names,
)
def test_what_a_terminal_is_told(classes: list[str], file: str, title: str) -> None:
    with desk() as here:
        sound = arrays(classes=3, train=4, test=3)
        sound["classnames"] = np.array(classes)
        path = save_npz(here.folder / f"{file.encode()[:40].decode(errors='ignore')}.npz", sound)
        for method in ("ncm", "slda"):
            asked = ("run", method, "--stream", f"embeddings:{path.name}")
            assert here.ask(*asked, "--set", "stream.tasks=2").code == 0
        fitted = here.ask("fit", "--embeddings", path.name, "--generator", "gaussian")
        assert fitted.code == 0
        html = ("report", "--html", "page.html", "--title", title.replace("\0", ""))
        for command in (("report",), ("table",), ("store", "ls"), ("store", "ls", "result"), html):
            assert here.ask(*command).code == 0
        text = (here.folder / "page.html").read_text("utf-8")
        assert not read(text).bad
        digests = re.findall(r"^ *([0-9a-f]{8})", here.ask("store", "ls", "result").out, re.M)
        assert here.ask("compare", *digests, "--draws", "10").code == 0
        assert here.ask("diagnose", digests[0], "--html", "one.html").code == 0
        assert not read((here.folder / "one.html").read_text("utf-8")).bad
