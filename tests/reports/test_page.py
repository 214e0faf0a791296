"""The page in a real browser: by mouse, by keyboard, without JavaScript, and with strangers' text in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from effbench.frame import load_run
from effbench.reports import html
from tests.synthetic import failed, make_cell, measured, write_example, write_run

SCRIPT = "<img src=x onerror='window.hacked = 1'></script><script>window.hacked = 1</script>"


@dataclass
class Opened:
    """A page, and what it said and asked for."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


def opened(browser: Browser, file: Path, **context: object) -> Opened:
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(15_000)
    one = Opened(page)
    page.on("console", lambda message: one.said.append(message.text))
    page.on("pageerror", lambda error: one.said.append(str(error)))
    page.on("request", lambda request: one.asked.append(request.url))
    page.goto(file.as_uri())
    return one


def rendered(folder: Path) -> Path:
    html.render(load_run(folder), folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_example(tmp_path_factory.mktemp("example"))
    (folder / "logs").mkdir()
    broken = make_cell("synthesizer-dense", seq=32768)
    (folder / "logs" / f"{broken.id}.log").write_text("Traceback\nValueError: `a | b`\n")
    return rendered(folder)


@pytest.fixture(scope="module")
def example(browser: Browser, file: Path) -> Iterator[Opened]:
    one = opened(browser, file)
    yield one
    one.page.context.close()


@pytest.fixture
def page(example: Opened) -> Page:
    """The page as it is when opened."""
    example.page.reload()
    return example.page


def entries(page: Page, column: int) -> list[str]:
    """The visible entries of a column of the table of cells."""
    return page.locator(f"#table tbody tr:visible > :nth-child({column + 1})").all_inner_texts()


def traces(page: Page) -> list[str]:
    return page.evaluate("document.getElementById('chart').data.map(trace => trace.name)")


def first_point(page: Page) -> tuple[float, float]:
    """Where the first point of the chart is on the screen."""
    point = page.locator("#chart .point").first
    page.evaluate("document.getElementById('explore').scrollIntoView()")
    box = point.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def axe(page: Page) -> str:
    result = Axe().run(page)
    return "" if result.violations_count == 0 else result.generate_report()


def test_it_opens_without_a_complaint_and_asks_for_nothing(example: Opened, file: Path) -> None:
    expect(example.page.locator("#chart .trace").first).to_be_attached()
    assert example.said == []
    assert set(example.asked) <= {file.as_uri()}


def test_mechanisms_are_toggled_and_metrics_chosen(page: Page) -> None:
    everyone = traces(page)
    assert {"mha", "linear"} < set(everyone)
    page.get_by_label("mha", exact=True).uncheck()
    assert set(traces(page)) == set(everyone) - {"mha"}
    page.get_by_label("mha", exact=True).check()
    page.get_by_role("combobox", name="Metric").select_option("FLOPs")
    title = "document.getElementById('chart').layout.yaxis.title.text"
    assert (traces(page), page.evaluate(title)) == (everyone, "FLOPs")
    page.get_by_label("Setting").select_option(index=1)
    assert page.evaluate("document.getElementById('chart').layout.xaxis.title.text") == "width"


def test_zooming_and_a_click_on_a_point(page: Page) -> None:
    span = "(([low, high]) => high - low)(document.getElementById('chart')._fullLayout.xaxis.range)"
    before = page.evaluate(span)
    page.get_by_label("Zoom in").click()
    page.wait_for_function(f"{span} < {before}")
    page.get_by_label("Reset axes").click()
    page.wait_for_function(f"Math.abs({span} - {before}) < 1e-6")
    page.mouse.click(*first_point(page))
    expect(page.locator("#cell-title")).to_contain_text("length 1024, width 256")


def test_columns_are_sorted_both_ways_and_what_has_no_number_comes_last(page: Page) -> None:
    page.get_by_role("button", name="Show all rows").click()
    button = page.get_by_role("columnheader").get_by_role("button", name="Length", exact=True)
    button.click()
    assert entries(page, 1)[0] == "1K"
    expect(page.locator("th[aria-sort=ascending]")).to_have_text("Length")
    button.click()
    assert entries(page, 1)[0] == "64K"
    page.get_by_role("columnheader").get_by_role("button", name="Time", exact=True).click()
    times = entries(page, 4)
    assert times[0].startswith("1.1")
    assert times[-11:] == [""] * 11
    assert "" not in times[:-11]


def test_rows_are_filtered(page: Page) -> None:
    page.get_by_label("Status").select_option("OOM (predicted)")
    expect(page.locator("#count")).to_have_text("2 of 110 cells")
    assert entries(page, 0) == ["mha", "mha"]
    page.get_by_label("Status").select_option("all")
    page.get_by_label("Search").fill("LINEAR 64k")
    assert entries(page, 0) == ["linear"]


def test_a_cell_is_looked_at_with_the_keyboard(page: Page) -> None:
    page.get_by_label("Search").fill("aft-simple uncounted-ops")
    button = page.locator("#table").get_by_role("button", name="aft-simple")
    button.focus()
    page.keyboard.press("Enter")
    view = page.get_by_role("dialog", name="aft-simple, length 1024, width 256")
    expect(view).to_be_visible()
    for text in (
        "unverified",
        "no reference to be compared with",
        "Process 1",
        "--mechanism aft-simple",
        "Synthetic CPU",
    ):
        expect(view).to_contain_text(text)
    assert page.evaluate("document.querySelector('.samples').data[0].y.length") == 12
    assert axe(page) == ""
    page.keyboard.press("Escape")
    expect(view).to_be_hidden()
    expect(button).to_be_focused()


def test_a_cell_without_numbers_shows_why_and_leads_to_its_cause(page: Page) -> None:
    page.get_by_label("Search").fill("synthesizer-dense error")
    page.locator("#table tbody tr:visible").click()
    expect(page.get_by_role("dialog")).to_contain_text("Traceback\nValueError: `a | b`", use_inner_text=True)
    page.keyboard.press("Escape")
    page.get_by_label("Search").fill("aft-full skipped")
    page.locator("#table tbody tr:visible").click()
    view = page.get_by_role("dialog")
    expect(view).to_contain_text("larger than a cell that ran out of time")
    view.get_by_role("row", name="Caused by").get_by_role("button").click()
    expect(view).to_contain_text("one pass took longer than 60 s")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    assert axe(page) == ""


def test_tables_and_pictures_remain_without_javascript(browser: Browser, file: Path) -> None:
    page = opened(browser, file, java_script_enabled=False).page
    assert len(entries(page, 0)) == 110
    expect(page.get_by_role("img", name="Time by sequence length")).to_be_visible()
    for part in ("#filters", "#explore", "#to-explore"):
        expect(page.locator(part)).to_be_hidden()
    assert page.get_by_role("button").count() == 0
    page.context.close()


def test_controls_are_not_printed(page: Page) -> None:
    page.emulate_media(media="print")
    expect(page.locator("#explore")).to_be_hidden()
    expect(page.locator("#filters")).to_be_hidden()
    expect(page.locator("#table")).to_be_visible()
    page.emulate_media(media="screen")


def test_strangers_text_is_shown_and_never_runs(browser: Browser, tmp_path: Path) -> None:
    cells = [make_cell(SCRIPT, seq=n) for n in (1024, 2048, 4096)]
    records = [
        *(measured(cell, [0.1], flags=[SCRIPT]) for cell in cells[:2]),
        failed(cells[2], "error", SCRIPT),
    ]
    folder = write_run(tmp_path, cells, records, title=SCRIPT)
    (folder / "logs").mkdir()
    (folder / "logs" / f"{cells[2].id}.log").write_text(SCRIPT)
    one = opened(browser, rendered(folder))
    page = one.page
    page.locator("#table tbody tr").last.click()
    view = page.get_by_role("dialog")
    for place in (page.locator("h1"), page.locator("#shown"), view.locator("h2"), view.locator("pre").last):
        expect(place).to_contain_text(SCRIPT)
    page.keyboard.press("Escape")
    page.mouse.move(*first_point(page))
    expect(page.locator("#chart .hoverlayer")).to_contain_text("window.hacked = 1")
    assert page.locator("img[src=x]").count() == 0
    assert page.evaluate("window.hacked") is None
    assert one.said == []
    page.context.close()
