"""What the page holds: every number, every reason, and nothing that a label smuggles in."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_results import HOSTILE, NO_RULE, latents, result, several

from raycl.errors import ConfigError, DataError
from raycl.report.boards import boards
from raycl.report.leaderboard import leaderboard
from raycl.report.page import page, write_page


class Elements(HTMLParser):
    """Every element with its attributes, and that all are closed in order."""

    VOID = frozenset({"meta", "img", "br", "wbr", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (self.open[-3:], tag)
        self.open.pop()

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def matrices(text: str) -> dict[str, dict]:
    found = re.search(r'<script type="application/json" id="matrices">(.*?)</script>', text, re.S)
    assert found
    return json.loads(found[1])


def test_every_number_of_the_leaderboard_is_in_the_table():
    results = several(4, 3, 5)
    elements = Elements(page(results))
    values = [float(td["data-v"]) for td in elements.all("td") if td.get("data-v")]
    for row in leaderboard(results):
        for name, cell in row.cells.items():
            if cell.mean is not None:
                assert cell.mean in values, (row.label, name)


def test_a_null_is_a_dash_with_its_reason_and_never_blank():
    elements = Elements(page([result(unseen=False)]))
    nulls = [td for td in elements.all("td") if td.get("class") == "null"]
    assert len(nulls) == 3
    assert all(str(td["title"]).startswith(NO_RULE) for td in nulls)
    reasons = [str(a["aria-label"]) for a in elements.all("abbr")]
    assert len(reasons) == 3
    assert all(reason.startswith(f"undefined: {NO_RULE}") for reason in reasons)


def test_headings_can_be_sorted_and_say_how_it_stands():
    elements = Elements(page(several(3, 1, 3)))
    heads = elements.all("th")
    columns = [th for th in heads if th.get("scope") == "col"]
    assert len(columns) == 12 and all("data-first" in th for th in columns)
    assert [th["aria-sort"] for th in columns if "aria-sort" in th] == ["descending"]
    assert len([th for th in heads if th.get("scope") == "row"]) == 3


def test_both_matrices_are_there_and_are_the_stored_ones():
    one = result(tasks=4)
    told = matrices(page([one]))
    seen, union = sorted(told.items())
    rounded = [[None if v is None else round(v, 1) for v in row] for row in one["r_seen"]]
    assert seen[1]["values"] == rounded
    assert union[1]["rows"][0] == "0"
    assert union[1]["values"][0] == [round(v, 1) for v in one["zero_shot"]]
    assert union[1]["values"][1:] == [[round(v, 1) for v in row] for row in one["r_union"]]


def test_nothing_is_fetched_and_the_policy_says_so():
    text = page(several(3, 2, 4))
    elements = Elements(text)
    assert not [a for _, a in elements.found if "src" in a or (a.get("href") or "#")[0] != "#"]
    assert "url(http" not in text and "@import" not in text
    (policy,) = [
        m["content"] for m in elements.all("meta") if "Content-Security" in str(m.get("http-equiv"))
    ]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy


@pytest.mark.parametrize("text", HOSTILE)
def test_names_stay_text(text):
    clean = Elements(page([result(seed=1, latents=latents(["a", "b"]))], "t"))
    names = [f"{text} {c}" for c in range(12)]
    whole = page(
        [
            result(
                seed=1, label=text or "-", names=names, latents=latents(names[:2]),
                warnings=[text], stream_label=text or "-",
                backbone=text, protocol=text or "-", why_null={"transfer": text},
                versions={text: text}, device=text, created=text, setting=text,
                experiment={"note": text},
            )
        ],
        text,
    )  # fmt: skip
    elements = Elements(whole)
    assert elements.open == []
    for tag in ("script", "img", "iframe", "title", "table", "figure", "style", "body"):
        # The title is also a tip's element, so it is counted outside of figures only.
        if tag != "title":
            assert len(elements.all(tag)) == len(clean.all(tag)), tag
    assert not [a for _, a in elements.found for name in a if name.startswith("on")]
    if text.startswith("<script>"):
        assert text in "".join(elements.words)


def test_a_task_name_cannot_end_the_embedded_data():
    from raycl.report.page import embedded

    for text in HOSTILE:
        inside = embedded({text: [text, None, 1.5]})
        assert "<" not in inside and ">" not in inside and "&" not in inside
        assert json.loads(inside) == {text: [text, None, 1.5]}


def test_label_spaces_never_share_a_board():
    base = result("slda")
    others = [
        result("ncm", protocol="x-tail"),
        result("ncm", backbone="tiny-clip"),
        result("ncm", tasks=3),
        result("ncm", label="same words, other data", contents=["1" * 64]),
        result("ncm", label="same words, other classes", names=[f"k{c}" for c in range(12)]),
    ]
    found = boards([base, *others])
    assert [len(board.settings) for board in found] == [1] * 6
    assert len({board.name + board.first.protocol + board.first.backbone for board in found}) == 6
    together = boards([base, result("ncm", seed=3)])
    assert [len(board.settings) for board in together] == [2], "seeds do not part a board"


@pytest.mark.parametrize("results", [[result()], [result(tasks=1)], [result(tasks=2)]])
def test_the_smallest_runs_have_a_page(results):
    elements = Elements(page(results))
    assert elements.open == [] and elements.all("figure")


def test_a_result_without_its_newer_parts_has_a_page():
    bare = {
        name: value
        for name, value in result().items()
        if name in ("key", "method", "stream", "backbone", "protocol", "metrics")
    }
    assert Elements(page([bare])).open == []


def test_nan_free_and_bounded_for_many_methods_and_tasks():
    text = page(several(40, 2, 50, per_task=22))
    assert len(text) < 4_500_000
    assert "NaN" not in text and ">nan<" not in text


def test_nothing_to_report_is_said():
    with pytest.raises(DataError, match="no result"):
        page([])


def test_it_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "page.html"
    assert write_page([result()], path) == path
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="cannot be written"):
        write_page([result()], tmp_path / "no" / "page.html")
    with pytest.raises(ConfigError, match="folder"):
        write_page([result()], tmp_path)

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ConfigError, match="No space left"):
        write_page([result(seed=2)], path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"], "no half file is left"


def test_a_lone_surrogate_does_not_stop_the_page(tmp_path: Path):
    path = write_page([result(label="a\udcffb")], tmp_path / "page.html")
    assert "a?b" in path.read_text(encoding="utf-8")
