"""`raycl report`, `raycl diagnose` and `raycl demo`: what they write, and what they say."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raycl.cli.main import code_of
from raycl.store.store import Store
from tests.streams.made_sets import arrays, save_npz

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a few short runs."""
    place = tmp_path_factory.mktemp("report")
    data = save_npz(place / "set.npz", arrays(noise=1.2, test=12))
    for method, seed in (("zero_shot", 0), ("ncm", 0), ("slda", 0), ("slda", 1)):
        done = code_of(
            ["run", method, "--stream", f"embeddings:{data}", "--set", "stream.tasks=3",
             "--seed", str(seed), "--store", str(place / "store"), "--json"]
        )  # fmt: skip
        assert done == 0
    return place


@pytest.fixture
def call(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Call:
    monkeypatch.setenv("RAYCL_STORE", str(folder / "store"))
    monkeypatch.chdir(tmp_path)

    def calling(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = code_of(args)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return calling


def keys(call: Call, method: str) -> list[str]:
    lines = call("store", "ls", "result", "--json")[1].splitlines()
    return [k for line in lines if f"/{method}-" in (k := json.loads(line)["key"])]


def test_everything_at_once(call: Call, tmp_path: Path) -> None:
    code, out, err = call(
        "report", "--html", "page.html", "--png", "pictures", "--csv", "t.csv",
        "--parquet", "t.parquet", "--latex", "t.tex", "--out", "t.md", "--title", "Ours & theirs",
    )  # fmt: skip
    assert (code, out) == (0, "")
    assert "the page written to page.html" in err and "pictures written to pictures" in err
    page = Path("page.html").read_text(encoding="utf-8")
    assert "<title>Ours &amp; theirs</title>" in page and "slda" in page
    assert len(list(Path("pictures").glob("*.png"))) == 9
    with Path("t.csv").open() as file:
        assert [row["label"] for row in csv.DictReader(file)] == pq.ParquetFile("t.parquet").read(
            use_threads=False
        )["label"].to_pylist()
    assert Path("t.tex").read_text().count("\\begin{tabular}") == 1
    assert Path("t.md").read_text().startswith("| label")
    assert not list(tmp_path.glob(".*")), "no half file is left"


def test_tables_on_stdout(call: Call) -> None:
    assert call("report", "--markdown")[1].startswith("| label")
    assert "\\toprule" in call("report", "--latex")[1]
    assert "slda" in call("report")[1]


def test_a_table_for_a_paper(call: Call) -> None:
    code, out, _ = call("table", "--latex", "--metric", "last_pooled")
    assert code == 0 and "95 \\% interval" in out and "Judged on the test data" in out
    assert "\\begin{table}" in out and "[" in out.split("slda")[1].split("\n")[0]
    assert "±" in call("table", "--spread", "sd")[1]
    assert call("table", "--out", "t.md")[:2] == (0, "")
    assert "- Protocol class-incremental" in Path("t.md").read_text()


def test_ours_beside_a_paper(call: Call) -> None:
    code, out, _ = call("report", "--against", "lada")
    assert code == 0 and "MoE-Adapters" in out and "no difference is given" in out
    assert call("report", "--against", "lada", "--html", "page.html")[0] == 0
    assert "Beside the paper" in Path("page.html").read_text(encoding="utf-8")


def test_another_s_result_beside_ours(call: Call, folder: Path, tmp_path: Path) -> None:
    place = str(tmp_path / "own")
    data = f"embeddings:{folder / 'set.npz'}"
    assert call("run", "ncm", "--stream", data, "--set", "stream.tasks=3", "--store", place)[0] == 0
    Path("theirs.csv").write_text("after,a,b,c\n1,90,,\n2,80,70,\n3,75,65,85\n")
    key = json.loads(call("store", "ls", "result", "--json", "--store", place)[1])["key"]
    add = ("import", "theirs.csv", "--method", "L2P", "--like", key, "--store", place, "--json")
    first, again = (json.loads(call(*add)[1]) for _ in range(2))
    assert first["imported"] == again["found"] and not again["imported"]
    out = call("report", "--store", place, "--markdown")[1]
    assert (
        "L2P (imported)" in out and len({line.split("|")[2] for line in out.splitlines()[2:4]}) == 1
    )
    assert call("store", "verify", "--store", place)[0] == 0
    code, _, err = call("diagnose", first["imported"][0], "--store", place)
    assert code == 2 and "no predictions" in err


def test_the_page_knows_when_it_was_run(call: Call) -> None:
    call("report", "--html", "page.html")
    assert "<dt>finished</dt>" in Path("page.html").read_text(encoding="utf-8")


def test_named_runs_alone(call: Call) -> None:
    digest = keys(call, "ncm")[0].rsplit("/", 1)[-1]
    call("report", digest[:8], "--csv", "t.csv")
    with Path("t.csv").open() as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["ncm"]


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["report", "feedbeef"], ["nothing is stored under this key", "feedbeef"]),
        (["report", "--html", "no/such/page.html"], ["cannot be written", "no/such/page.html"]),
        (["report", "--html", "."], ["cannot be written"]),
        (["report", "--out", "t.xlsx"], [".xlsx", ".parquet"]),
        (["report", "--metric", "last_poled"], ["did you mean last_pooled"]),
        (["report", "--against", "ladda"], ["did you mean lada"]),
        (["report", "--against", "autoseed"], ["not shown as published"]),
        (["table", "--metric", "last_poled"], ["did you mean last_pooled"]),
        (["import", "none.csv", "--method", "x"], ["cannot be read", "none.csv"]),
        (["import", "none.csv", "--tests", "1,x"], ["whole numbers"]),
        (["import", "none.csv", "--like", "feedbeef"], ["nothing is stored under this key"]),
        (["report", "--store", "typo"], ["no store here"]),
        (["diagnose"], ["RUN"]),
        (["diagnose", "feedbeef"], ["nothing is stored under this key"]),
        (["diagnose", "abc"], ["4 or more letters"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_exits_2_and_says_so(call: Call, args: list[str], parts: list[str]) -> None:
    code, out, err = call(*args)
    assert (code, out) == (2, "")
    assert [part for part in parts if part not in err] == [] and "Traceback" not in err


def test_an_empty_store_has_nothing_to_report(call: Call, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = call("report", "--store", "empty")
    assert code == 2 and "no finished run" in err


def test_diagnose_judges_with_figures_and_thresholds(call: Call) -> None:
    key = keys(call, "slda")[0]
    code, out, _ = call("diagnose", key, "--json")
    answer = json.loads(out)
    assert code == 0 and answer["key"] == key
    names = [finding["name"] for finding in answer["findings"]]
    assert {"below_zero_shot", "recency_bias", "imbalance", "never_predicted"} <= set(names)
    for finding in answer["findings"]:
        assert finding["verdict"] in ("good", "watch", "bad")
        assert finding["threshold"] and isinstance(finding["figure"], float)


def test_diagnose_finds_the_zero_shot_run_beside_it(call: Call) -> None:
    def drops(key: str) -> list[str]:
        found = json.loads(call("diagnose", key, "--json")[1])["findings"]
        return [f["text"] for f in found if f["name"] == "early_task_drop"]

    (text,) = drops(keys(call, "ncm")[0])
    assert "costs zero-shot" in text
    other_seed = [k for k in keys(call, "slda") if "seed1" in k]
    assert drops(other_seed[0]) == [], "seed 1 has no zero_shot run"


def test_diagnose_for_people_and_as_pictures(call: Call) -> None:
    key = keys(call, "slda")[0]
    code, out, err = call("diagnose", key, "--html", "d.html", "--png", "pictures")
    assert code == 0 and "against zero-shot" in out and "bad below 0" in out
    assert "Confusion among tasks" in Path("d.html").read_text(encoding="utf-8")
    assert sorted(p.name for p in Path("pictures").iterdir()) == ["confusion.png", "shares.png"]
    assert "d.html" in err


def test_the_page_shows_what_generators_draw(call: Call, folder: Path, tmp_path: Path) -> None:
    data = f"embeddings:{folder / 'set.npz'}"
    quick = ("method.generator.kind=gaussian", "method.align.epochs=1", "stream.tasks=3")
    settings = [part for setting in quick for part in ("--set", setting)]
    place = str(tmp_path / "own")
    assert call("run", "cgil", "--stream", data, *settings, "--store", place)[0] == 0
    assert call("report", "--store", place, "--html", "p.html", "--png", "pictures")[0] == 0
    page = Path("p.html").read_text(encoding="utf-8")
    assert page.count('class="chart panel"') == 6 and "thing 0" in page
    assert len(list(Path("pictures").glob("*-latents-1-*.png"))) == 1
    assert call("report", "--store", place, "--out", "t.csv")[0] == 0


GRID = """
stream: {{kind: embeddings, paths: ["{data}"], tasks: 3}}
methods:
  - {{kind: zero_shot}}
  - {{kind: cgil, generator: {{kind: gaussian}}, per_class: 8, align: {{epochs: 2}}}}
  - {{kind: joint, align: {{epochs: 2}}}}
seeds: [0, 1]
"""


def test_the_demo_tells_the_story_and_fits_each_generator_once(
    call: Call, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = tmp_path / "demo.yaml"
    space.write_text(GRID.format(data=folder / "set.npz"))
    monkeypatch.setattr("raycl.cli.demo.shipped.find", lambda *_: space)
    monkeypatch.setattr("raycl.cli.demo.console.width", 100)
    place = tmp_path / "demo-store"
    code, out, _ = call("demo", "--no-ray", "--store", str(place))
    assert code == 0, out
    assert "12 generators (6 classes × 2 seeds): 12 fitted" in out
    heads = ["methods to know CGIL by", "CGIL fits a generator", "CGIL replays", "leaderboard"]
    assert [line for line in heads if line not in out] == []
    assert "Ray actor" not in out and "after task 3" in out
    store = Store.open(str(place))
    assert len(list(store.records("generator"))) == 12, "the runs found them all"
    page = (place / "demo.html").read_text(encoding="utf-8")
    assert page.count('class="chart panel"') == 6
    code, out, _ = call("demo", "--no-ray", "--store", str(place))
    assert code == 0 and "nothing is fitted" in out and "computed in" not in out
