"""Matrices from elsewhere: read, checked, stored as imported, and refused where they cannot be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from made_results import result

from raycl.errors import ConfigError, DataError
from raycl.report.boards import boards
from raycl.report.imported.mammoth import read_mammoth
from raycl.report.imported.storing import Imported, Said, import_file
from raycl.report.latex import to_latex
from raycl.report.leaderboard import leaderboard, to_csv, to_markdown
from raycl.report.page import page
from raycl.report.reading import FinishedRun, evidence_of, finished_runs
from raycl.store.store import Store

GOLDEN = Path(__file__).parents[1] / "metrics" / "lada_xtail_16shot_order1.csv"
FULL = "after,a,b\na,90,40\nb,80,70\n"
TRIANGLE = "after,a,b\na,90,\nb,80,70\n"
MAMMOTH = (
    "{'model': 'er', 'dataset': 'seq-cifar10', 'seed': 3, 'lr': 0.03, 'backbone': 'resnet18', "
    "'device': device(type='cuda', index=0), 'notes': None, 'conf_timestamp': '2024-01-01', "
    "'accmean_task1': 98.0, 'accmean_task2': np.float64(75.25), 'accuracy_1_task1': 98.0, "
    "'accuracy_1_task2': np.float64(60.5), 'accuracy_2_task2': 90.0, "
    "'forward_transfer': nan, 'backward_transfer': -37.5, 'forgetting': 37.5}\n"
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def imported(store: Store, text: str, name: str = "theirs.csv", **said) -> list[Imported]:
    path = Path(store.uri).parent / name
    path.write_text(text, encoding="utf-8")
    return import_file(store, path, Said(**{"method": "Theirs", **said}))


def values_of(store: Store, text: str, **said):
    (one,) = imported(store, text, **said)
    return one.values


def test_the_matrix_that_lada_publishes_gives_its_figures_on_the_page(store: Store) -> None:
    import_file(store, GOLDEN, Said("LADA", backbone="ViT-B-16"))
    (run,) = finished_runs(store)
    metrics = run.values["metrics"]
    shown = [f"{metrics[name]:.2f}" for name in ("transfer", "average", "last_union")]
    assert shown == ["61.59", "72.68", "83.10"]
    table = page([run.values]).split("<tbody>")[1].split("</tbody>")[0]
    cells = [re.sub("<.*?>", "", cell) for cell in re.findall(r"<td.*?</td>", table)]
    assert [cell for cell in cells if cell in ("61.6", "72.7", "83.1")][-3:] == [
        "61.6",
        "72.7",
        "83.1",
    ]


def test_a_full_matrix_is_among_all_classes_and_a_triangle_among_those_seen(store: Store) -> None:
    whole, part = values_of(store, FULL), values_of(store, TRIANGLE, method="Other")
    assert whole["r_union"] == [[90, 40], [80, 70]]
    assert whole["r_seen"] == [[None, None], [80, 70]]
    assert (whole["protocol"], part["protocol"]) == ("x-tail", "class-incremental")
    assert part["r_seen"] == [[90, None], [80, 70]]
    assert part["r_union"] == [[None, None], [80, 70]]
    assert whole["metrics"]["transfer"] == 40 and part["metrics"]["transfer"] is None
    assert part["metrics"]["forgetting"] == 10
    assert "before they are learnt" in part["why_null"]["transfer"]


def test_pooled_accuracy_needs_the_numbers_of_tests(store: Store) -> None:
    assert "--tests" in values_of(store, TRIANGLE)["why_null"]["last_pooled"]
    counted = values_of(store, TRIANGLE, method="Counted", tests=(300, 100))
    assert counted["metrics"]["last_pooled"] == 77.5
    assert "predictions" in counted["why_null"]["ece_seen"]
    with pytest.raises(ConfigError, match="each task"):
        imported(store, TRIANGLE, tests=(1, 2, 3))


def test_a_zero_shot_row_and_other_separators(store: Store) -> None:
    text = "after;a;b\nzero_shot;50,5;30\na;90;40\nb;80%;70\n"
    made = values_of(store, text)
    assert made["zero_shot"] == [50.5, 30] and made["metrics"]["fwt"] == 10


def test_fractions_must_be_said(store: Store) -> None:
    text = "after,a,b\na,0.9,0.4\nb,0.8,0.7\n"
    with pytest.raises(DataError, match="look like fractions"):
        imported(store, text)
    assert values_of(store, text, unit="fraction")["r_union"][0] == pytest.approx([90, 40])
    with pytest.raises(DataError, match="1 at most"):
        imported(store, FULL, unit="fraction")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("90,40\n80,70\n", "no header"),
        ("after,a,b\na,90\nb,80,70\n", "line 2: a row has as many cells"),
        ("after,a,b\na,90,40\nb,80,70,60\n", "line 3"),
        ("after,a,b\na,90,nan\nb,80,70\n", "from 0 to 100"),
        ("after,a,b\na,90,inf\nb,80,70\n", "from 0 to 100"),
        ("after,a,b\na,900,40\nb,80,70\n", "from 0 to 100"),
        ("after,a,b\na,-1,40\nb,80,70\n", "from 0 to 100"),
        ("after,a,b\na,ninety,40\nb,80,70\n", "not a number"),
        ("after,a,b\na,90,40\n", "1 rows for 2 tasks"),
        ("after,a,a\na,90,40\nb,80,70\n", "two columns have one name"),
        ("after,a,b\na,90,40\na,80,70\n", "two rows have one name"),
        ("after,a,b\nb,90,40\na,80,70\n", "not in one order"),
        ("after,a,b\na,90,40\nb,,70\n", "task 1 has no accuracy after task 2"),
        ("after,a,b,c\n1,9,9,\n2,9,9,\n3,9,9,9\n", "only some tasks"),
        ("after,a,\na,90,40\nb,80,70\n", "a task has no name"),
        ('after,a,b\na,"90,40\nb,80,70\n', "as many cells|not CSV"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(store: Store, text, words) -> None:
    with pytest.raises(DataError, match=words):
        imported(store, text)
    assert finished_runs(store) == []


def test_the_same_twice_is_one_result_and_a_contradiction_is_refused(store: Store) -> None:
    (first,), (again,) = imported(store, FULL), imported(store, FULL, "copy.csv")
    assert (first.new, again.new) == (True, False)
    assert first.values["key"] == again.values["key"] and len(finished_runs(store)) == 1
    other = FULL.replace("70", "71")
    with pytest.raises(ConfigError, match="says otherwise"):
        imported(store, other)
    imported(store, other, seeds=(1,))
    assert len(finished_runs(store)) == 2


def test_seeds_of_one_setting_are_one_row(store: Store) -> None:
    imported(store, FULL, seeds=(0,))
    imported(store, FULL.replace("70", "74"), seeds=(1,))
    (row,) = leaderboard([run.values for run in finished_runs(store)])
    assert row.n == 2 and row.cells["last_union"].mean == 76


def test_it_is_marked_wherever_it_is_shown(store: Store) -> None:
    values = [values_of(store, FULL)]
    rows = leaderboard(values)
    for text in (to_markdown(rows), to_csv(rows), to_latex(boards(values)), page(values)):
        assert "Theirs (imported)" in text
    assert "measured elsewhere" in page(values)


def like() -> FinishedRun:
    ours = result("slda", tasks=2, seed=5)
    return FinishedRun(record=None, values=ours)  # type: ignore[arg-type]


def test_like_a_run_of_ours_it_stands_on_its_board(store: Store) -> None:
    theirs = values_of(store, FULL, like=like())
    (board,) = boards([theirs, like().values])
    assert {setting.label for setting in board.settings} == {"slda", "Theirs (imported)"}
    assert theirs["seeds"]["order"] == 5 and theirs["metrics"]["last_pooled"] == 75
    (alone,) = boards([values_of(store, FULL, method="Alone")])
    assert alone.name != board.name


@pytest.mark.parametrize(
    "said", [{"stream": "other"}, {"backbone": "other"}, {"protocol": "x-tail"}]
)
def test_what_contradicts_the_run_it_is_like_is_refused(store: Store, said) -> None:
    with pytest.raises(ConfigError, match="contradicts --like"):
        imported(store, FULL, like=like(), **said)
    with pytest.raises(DataError, match="other tasks"):
        imported(store, "after,a\na,90\n", like=like())


def test_a_matrix_has_no_predictions_to_judge(store: Store) -> None:
    imported(store, FULL)
    with pytest.raises(DataError, match="no predictions"):
        evidence_of(store, finished_runs(store)[0])


def test_a_log_of_mammoth(store: Store) -> None:
    text = MAMMOTH + MAMMOTH.replace("'seed': 3", "'seed': 4").replace("60.5", "50.5")
    one, two = imported(store, text, "logs.pyd", method=None)
    values = one.values
    assert (values["label"], values["stream"]) == ("er (imported)", "seq-cifar10")
    assert values["backbone"] == "resnet18" and values["seeds"]["order"] == 3
    assert values["r_seen"] == [[98, None], [60.5, 90]]
    assert values["metrics"]["forgetting"] == 37.5 and values["metrics"]["last_task_mean"] == 75.25
    assert values["setting"] == two.values["setting"], "seeds and clocks make no other setting"
    (row,) = leaderboard([values, two.values])
    assert row.n == 2


def test_other_options_of_mammoth_are_another_setting(store: Store) -> None:
    text = MAMMOTH + MAMMOTH.replace("0.03", "0.1")
    one, two = imported(store, text, "logs.pyd", method=None)
    assert one.values["setting"] != two.values["setting"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{'accmean_task1': 90.0}\n", "no accuracy of single tasks"),
        ("{'model': 'er'}\n", "no accuracy of single tasks"),
        ("[1, 2]\n", "not a dictionary"),
        ("{'a': \n", "not a dictionary"),
        ("{" * 5000, "not a dictionary"),
        ("{'accuracy_1_task2': 3.0, 'accuracy_2_task2': 3.0}\n", "no accuracy after task 1"),
        ("{'accuracy_1_task1': nan}\n", "from 0 to 100"),
    ],
)
def test_logs_that_hold_no_matrix_are_refused(store: Store, text, words) -> None:
    with pytest.raises(DataError, match=words):
        imported(store, text, "logs.pyd")


def test_nothing_in_a_log_is_run(tmp_path: Path) -> None:
    gone = tmp_path / "made"
    text = f"{{'x': __import__('pathlib').Path({str(gone)!r}).touch(), 'accuracy_1_task1': 9.0}}"
    assert len(list(read_mammoth(text, "logs.pyd"))) == 1 and not gone.exists()


def test_a_log_that_knows_the_task_must_be_said_to(store: Store) -> None:
    folder = Path(store.uri).parent / "task-il"
    folder.mkdir()
    (folder / "logs.pyd").write_text(MAMMOTH)
    with pytest.raises(DataError, match="task-il"):
        import_file(store, folder / "logs.pyd", Said())
    (one,) = import_file(store, folder / "logs.pyd", Said(protocol="task-incremental"))
    assert one.values["protocol"] == "task-incremental"


def test_a_file_that_is_no_text_or_is_not_there(store: Store, tmp_path: Path) -> None:
    (tmp_path / "picture.csv").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DataError, match="no text"):
        import_file(store, tmp_path / "picture.csv", Said("x"))
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            import_file(store, path, Said("x"))
    with pytest.raises(ConfigError, match="whose result"):
        imported(store, FULL, method=None)
