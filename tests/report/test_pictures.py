"""Pictures for papers: one file per figure, whatever the labels hold, and no global state."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_results import HOSTILE, result, several

from raycl.errors import ConfigError
from raycl.report.boards import boards
from raycl.report.figures import figures
from raycl.report.pictures import drawn, write_pictures

PNG = b"\x89PNG\r\n\x1a\n"


def test_every_figure_has_its_file(tmp_path: Path) -> None:
    found = boards(several(3, 2, 4))
    written = write_pictures(found, tmp_path / "new" / "folder")
    assert len(written) == len(set(written)) == sum(len(figures(board)) for board in found) == 9
    assert all(path.read_bytes().startswith(PNG) for path in written)
    assert sorted(written) == sorted((tmp_path / "new" / "folder").iterdir())


def test_pdf_is_vector(tmp_path: Path) -> None:
    figure = figures(boards([result()])[0])[0]
    assert drawn(figure, "pdf").startswith(b"%PDF-")
    assert drawn(figure, "pdf") == drawn(figure, "pdf"), "the same figure gives the same bytes"


@pytest.mark.parametrize("label", [*HOSTILE, "_hidden", "漢字 ❤"])
def test_labels_are_never_read_as_formulas(label: str) -> None:
    board = boards([result(label=label or "-"), result("zero_shot")])[0]
    for figure in figures(board):
        assert drawn(figure).startswith(PNG)


@pytest.mark.parametrize("tasks", [1, 30])
def test_few_and_many_tasks(tasks: int) -> None:
    for figure in figures(boards(several(2, 1, tasks))[0]):
        assert drawn(figure).startswith(PNG)


def test_a_folder_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_pictures(boards([result()]), tmp_path / "file" / "folder")


def test_matplotlib_keeps_its_settings_and_opens_no_window() -> None:
    import matplotlib as mpl
    from matplotlib._pylab_helpers import Gcf

    before = dict(mpl.rcParams)
    drawn(figures(boards([result()])[0])[0])
    assert dict(mpl.rcParams) == before
    assert not Gcf.figs
