"""What a terminal is shown of names that somebody else chose."""

from __future__ import annotations

import io

from rich.table import Table

from raycl.errors import LONGEST, ConfigError
from raycl.observe.console import Console
from raycl.printable import plain, plain_lines


def test_control_characters_are_not_shown_and_text_is() -> None:
    assert plain("a\x1b[31mb\x07\x7f\u202e\ud800c") == "a?[31mb????c"
    assert plain("tab\there\r\n\u2028") == "tab here   "
    assert plain_lines("a\nb\x00") == "a\nb?"
    family = "\N{MAN}\u200d\N{WOMAN}"
    assert plain(f"café 猫 {family}") == f"café 猫 {family}"


def test_a_table_shows_no_control_character_and_keeps_its_own_colours() -> None:
    table = Table("name")
    table.add_row("a\x1b]0;title\x07\x85b", style="red")
    for coloured in (False, True):
        out = io.StringIO()
        Console(file=out, color_system="standard" if coloured else None).print(table)
        assert "\x07" not in out.getvalue() and "\x1b]0" not in out.getvalue()
        assert ("\x1b[31m" in out.getvalue()) == coloured


def test_a_complaint_keeps_to_a_readable_length() -> None:
    text = str(ConfigError("unknown " + "x" * 10_000, got="y" * 10_000, do="shorten it"))
    assert len(text) < 3 * LONGEST and text.endswith("→ shorten it")
    lines = "\n".join(["a traceback"] * 200)
    assert lines in str(ConfigError(lines))
