"""The report in a real browser: Debian's chromium, without a window and without a network."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import deshi
from browser_pages import CONTRAST, OUTSIDE, SCREENS, Visit


@pytest.fixture(scope="module")
def file(_finished_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on two runs, one with an explained gap."""
    root = tmp_path_factory.mktemp("browser") / "root"
    shutil.copytree(_finished_root, root)
    deshi.gap(f"paths.root={root}", run="latest")
    return deshi.report(f"paths.root={root}", runs=["*_tiny_*"]).page


@pytest.fixture(params=SCREENS)
def visit(request: pytest.FixtureRequest, browser: Any, file: Path) -> Iterator[Visit]:
    """The report on a phone and on a desk."""
    opened = Visit(browser, file.as_uri(), SCREENS[request.param])
    yield opened
    opened.context.close()


def test_the_page_fits_and_is_silent(visit: Visit) -> None:
    """Nothing sticks out at the sides, nothing is loaded, nothing is complained about."""
    page = visit.page
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert page.evaluate(OUTSIDE) == []
    assert visit.messages == [] and [url for url in visit.requests if not url.startswith("file:")] == []
    assert len(visit.requests) == 1
    assert len(page.screenshot(full_page=True)) > 20_000


def test_it_still_fits_with_everything_open(visit: Visit) -> None:
    """Merged tables and configurations are the widest things on the page."""
    visit.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert visit.page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert visit.page.evaluate(OUTSIDE) == []


def test_all_sections_and_figures_are_visible(visit: Visit) -> None:
    """A section of height 0 is a section that nobody sees."""
    headings = visit.page.locator("h2")
    assert headings.count() == 8 and all(headings.nth(number).is_visible() for number in range(8))
    figures = visit.page.locator("figure > svg")
    boxes = [figures.nth(number).bounding_box() for number in range(figures.count())]
    assert len(boxes) >= 12 and all(box and box["width"] > 200 and box["height"] > 60 for box in boxes)


def test_contents_and_details_work_by_keyboard(visit: Visit) -> None:
    """Without a mouse, and without a script."""
    page = visit.page
    page.locator("nav a", has_text="Examples").focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("#examples$"))  # a link is followed some time after its key
    collapsed = page.locator("#examples details:not([open]) > summary").first
    handle = collapsed.element_handle()
    collapsed.focus()
    page.keyboard.press("Enter")
    assert handle.evaluate("one => one.parentElement.open")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_by_day_and_by_night(browser: Any, file: Path, scheme: str) -> None:
    """Contrast of at least 4.5 (WCAG AA) for every text, those in figures' axes included."""
    opened = Visit(browser, file.as_uri(), SCREENS["desk"], scheme)
    opened.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    faint = [(ratio, text) for ratio, text in opened.page.evaluate(CONTRAST) if not text.endswith("%")]
    opened.context.close()
    assert faint == [], "numbers on coloured bars are the exception: they stand in the table below too"
