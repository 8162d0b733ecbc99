"""The page in a real browser: it loads, sorts, tells, changes its theme, and asks for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Browser, browser, executable
from made_results import HOSTILE, latents, result, several

from raycl.report.page import write_page

PROGRAM = executable()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium or Chrome on this machine")

LABELS = "[...document.querySelectorAll('table.sortable tbody th')].map(th => th.innerText.trim())"
GROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    with browser(PROGRAM, tmp_path_factory.mktemp("profile")) as one:
        one.screen(1280)
        yield one


@pytest.fixture
def page(opened: Browser, tmp_path: Path) -> Browser:
    opened.screen(1280)
    opened.open(write_page(several(5, 2, 6), tmp_path / "page.html"))
    return opened


def column(page: Browser, place: int) -> list[str]:
    return page.js(
        f"[...document.querySelector('table.sortable').tBodies[0].rows]"
        f".map(row => row.cells[{place}].dataset.v)"
    )


def order(page: Browser, place: int) -> str | None:
    return page.js(
        f"document.querySelectorAll('table.sortable thead th')[{place}].getAttribute('aria-sort')"
    )


def test_it_loads_without_a_complaint_and_asks_for_itself_alone(page: Browser) -> None:
    assert page.complaints() == []
    (address,) = page.requests()
    assert address.startswith("file://")
    assert page.js("document.querySelectorAll('svg.chart').length") > 10


def test_its_policy_refuses_what_slipped_in(page: Browser) -> None:
    page.js(
        "document.body.insertAdjacentHTML('beforeend', "
        '\'<img src="https://example.invalid/x.png"><iframe src="https://example.invalid">\')'
    )
    page.js("document.body.append(Object.assign(document.createElement('script'), "
            "{textContent: 'window.slipped = 1'}))")  # fmt: skip
    page.js("new Promise(done => setTimeout(done, 300))")
    assert page.js("window.slipped") is None
    assert any("Content Security Policy" in complaint for complaint in page.complaints())


def test_what_results_say_is_only_ever_text(opened: Browser, tmp_path: Path) -> None:
    names = [HOSTILE[i % len(HOSTILE)] for i in range(12)]
    results = [
        result(label=text or "-", seed=i, names=names, warnings=[text], backbone=text,
               why_null={"transfer": text}, stream_label=text or "-", versions={text: text})
        for i, text in enumerate(HOSTILE)
    ]  # fmt: skip
    opened.open(write_page(results, tmp_path / "hostile.html", HOSTILE[5]))
    opened.js("document.querySelectorAll('details').forEach(it => { it.open = true; })")
    assert opened.complaints() == []
    assert len(opened.requests()) == 1
    assert opened.js("document.title") == HOSTILE[5]
    assert opened.js("document.querySelectorAll('img, iframe, object, b script').length") == 0
    assert opened.js("document.scripts.length") == 2
    assert opened.js("document.querySelectorAll('[onload], [onerror]').length") == 0
    assert HOSTILE[0] in opened.js(LABELS) and HOSTILE[1] in opened.js(LABELS)


def test_a_click_sorts_numbers_as_numbers_and_nulls_last(page: Browser) -> None:
    transfer = 7
    for sign, said in ((-1, "descending"), (1, "ascending")):
        page.js(f"document.querySelectorAll('table.sortable thead th button')[{transfer}].click()")
        assert order(page, transfer) == said and order(page, 2) is None
        values = column(page, transfer)
        numbers = [float(v) for v in values if v]
        assert numbers == sorted(numbers, key=lambda v: sign * v) and len(numbers) == 3
        assert values[3:] == ["", ""]


def test_the_keyboard_sorts_too(page: Browser) -> None:
    page.js("document.querySelector('table.sortable thead th button').focus()")
    page.press("Enter", 13)
    assert order(page, 0) == "ascending"
    assert column(page, 0) == sorted(column(page, 0))


def test_both_themes_and_the_toggle_that_is_remembered(page: Browser, tmp_path: Path) -> None:
    light = page.js(GROUND)
    page.screen(1280, scheme="dark")
    dark = page.js(GROUND)
    assert light != dark
    page.js("document.querySelector('.theme').click()")
    assert page.js(GROUND) == light and page.js("document.documentElement.dataset.theme") == "light"
    page.open(tmp_path / "page.html")
    assert page.js(GROUND) == light, "the choice is remembered"
    page.js("localStorage.clear()")
    page.open(tmp_path / "page.html")
    assert page.js(GROUND) == dark
    assert page.complaints() == []


def test_pointing_at_a_cell_tells_its_number(page: Browser) -> None:
    page.js(
        "document.querySelector('svg.heat[data-matrix]')"
        ".scrollIntoView({block: 'center', behavior: 'instant'})"
    )
    x, y, value = page.js(
        "(() => { const svg = document.querySelector('svg.heat[data-matrix]');"
        "const [left, size, gap, top] = svg.dataset.grid.split(' ').map(Number);"
        "const at = new DOMPoint(left + 1.5 * size, top + 2.5 * size)"
        ".matrixTransform(svg.getScreenCTM());"
        "const data = JSON.parse(document.getElementById('matrices').textContent);"
        "return [at.x, at.y, data[svg.dataset.matrix].values[2][1]]; })()"
    )
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    page.wait("document.querySelector('.tip.on') !== null")
    told = page.js("document.querySelector('.tip').textContent")
    assert told == f"after task 3, task 2: {value:.1f} %"


def test_a_saved_figure_stands_alone(page: Browser) -> None:
    saved = page.js(
        "(async () => { const kept = []; URL.createObjectURL = blob => { kept.push(blob); "
        "return '#'; }; document.querySelectorAll('figure > .quiet').forEach(b => b.click());"
        "return Promise.all(kept.map(blob => blob.text())); })()"
    )
    figures = page.js("document.querySelectorAll('figure').length")
    assert len(saved) >= figures
    for text in saved:
        assert "--c0:#" in text and ".chart" in text and "http://www.w3.org/2000/svg" in text
        assert page.js(
            f"new DOMParser().parseFromString({text!r}, 'image/svg+xml')"
            ".querySelector('parsererror') === null"
        )


def test_panels_are_saved_as_one_picture(opened: Browser, tmp_path: Path) -> None:
    opened.screen(1280)
    shown = result("cgil", latents=latents([f"class {c}" for c in range(12)]))
    opened.open(write_page([shown], tmp_path / "page.html"))
    (saved,) = opened.js(
        "(async () => { const kept = []; URL.createObjectURL = blob => { kept.push(blob); "
        "return '#'; }; document.querySelector('figure[id*=latents] > .quiet').click();"
        "return Promise.all(kept.map(blob => blob.text())); })()"
    )
    inner = opened.js(
        f"[...new DOMParser().parseFromString({saved!r}, 'image/svg+xml')"
        ".querySelectorAll('svg svg.panel')].map(svg => ['x', 'y', 'width', 'height']"
        ".map(name => Number(svg.getAttribute(name))))"
    )
    assert len(inner) == 10
    assert len({(x, y) for x, y, *_ in inner}) == 10, "side by side"
    assert "class 9" in saved and "class 10" not in saved and "drawn for replay" in saved


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_is_wider_than_the_screen(opened: Browser, tmp_path: Path, width: int) -> None:
    long = result(
        label="a_method_with_a_name(" + "of=many,parts=" * 9 + "1)",
        tasks=12,
        latents=latents([f"a class with a name of {c} words" * 5 for c in range(12)]),
    )
    opened.screen(width)
    opened.open(write_page([*several(6, 1, 12), long], tmp_path / "page.html", "x" * 90))
    assert opened.js("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("methods", "tasks"), [(2, 3), (12, 10), (40, 20)])
def test_labels_of_a_chart_do_not_overlap(
    opened: Browser, tmp_path: Path, methods: int, tasks: int
) -> None:
    opened.screen(1280)
    drawn = latents([f"a class of {c} words or more" for c in range(10)])
    opened.open(write_page(several(methods, 1, tasks, latents=drawn), tmp_path / "page.html"))
    overlaps = opened.js(
        "(() => { const found = []; for (const svg of document.querySelectorAll('svg.chart')) {"
        "if (!svg.getClientRects().length) continue;"
        "const boxes = [...svg.querySelectorAll('text.label, text.tick, text.class')]"
        ".map(t => [t.textContent, t.getBoundingClientRect()]);"
        "boxes.forEach(([a, p], i) => boxes.slice(i + 1).forEach(([b, q]) => {"
        "if (p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 5 && "
        "q.top < p.bottom - 5) found.push([svg.getAttribute('aria-label'), a, b]); })); }"
        "return found; })()"
    )
    assert overlaps == []
