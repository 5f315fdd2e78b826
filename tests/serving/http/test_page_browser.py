"""The service's page in a real browser, with two bundles, test users and a teacher's lists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser_pages import CONTRAST, OUTSIDE, PATIENCE, SCREENS, browser
from browser_pages import Visit as Opened
from deshi.artifacts import write_json
from deshi.serving.http.demo import Demo, DemoUser
from service_process import KEY, Process, renamed

__all__ = ["browser"]

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def place(serving: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with another bundle, one of whose ids is no harmless text, and a file of test users."""
    folder = tmp_path_factory.mktemp("page-browser")
    renamed(serving, folder / "plain", {0: EVIL})
    users = [
        DemoUser(user_id="u1", history=["1", "2", "3", "4"], truth="5", teacher=[str(item) for item in range(5, 17)]),
        DemoUser(user_id="u2", history=["9", EVIL], truth="11"),
    ]
    write_json(folder / "demo.json", Demo(data="tiny", teacher="llm", users=users).model_dump())
    return folder


@pytest.fixture(scope="module")
def url(browser: Any, serving: Path, place: Path) -> Iterator[str]:
    """Where the service answers; asked for after the browser, so that nothing starts where there is none."""
    process = Process(f"bundle={serving}", f"compare_with=[{place / 'plain'}]", f"demo={place / 'demo.json'}")
    yield process.url
    process.kill()


class Visit(Opened):
    """The page on a screen of some size, with its messages and requests."""

    def __init__(self, browser: Any, url: str, size: tuple[int, int], scheme: str = "light") -> None:
        super().__init__(browser, url, size, scheme)
        self.page.locator("#served", has_text=re.compile(r"^(?!\s*Loading)")).wait_for()

    def take(self, number: int) -> None:
        """Choose a test user and wait for the lists."""
        self.page.select_option("#user", str(number))
        self.page.click("#take")
        self.page.wait_for_selector(".model li")


@pytest.fixture(params=SCREENS)
def visit(request: pytest.FixtureRequest, browser: Any, url: str) -> Iterator[Visit]:
    """The page on a phone and on a desk."""
    opened = Visit(browser, url, SCREENS[request.param])
    yield opened
    opened.context.close()


def test_a_test_user_is_shown_side_by_side(visit: Visit, url: str) -> None:
    """Three lists with the truth in them, reasons, times; it fits, is silent, and asks nobody else."""
    page = visit.page
    visit.take(0)
    assert page.locator(".model").count() == 3 and page.locator("#history li").count() == 4
    assert page.locator("#truth").inner_text() == "What came next: Film 5 (1990)"
    assert page.locator(".model").nth(2).locator("li.right .right").inner_text() == "came next"
    assert page.locator(".model", has_text="ms").count() == 2
    assert page.locator("#reasons li").count() >= 3 and page.locator("#shared tr").count() == 3
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert page.evaluate(OUTSIDE) == []
    assert visit.messages == [] and all(one.startswith((url, "data:")) for one in visit.requests)


def test_a_history_is_built_by_keyboard_alone(visit: Visit) -> None:
    """Search, down, Enter; remove with Enter on a button; add from a list; the focus is never lost."""
    page = visit.page
    assert page.evaluate("document.activeElement.id") == "query"
    page.keyboard.type("film 12")
    page.wait_for_selector("#found button:has-text('Film 12')")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector(".model li")
    assert page.locator("#history li").all_inner_texts()[0].startswith("Film 12")
    assert page.evaluate("document.activeElement.id") == "query"
    page.keyboard.press("Escape")
    page.locator(".model li button").first.focus()
    page.keyboard.press("Enter")
    page.locator("#history li").nth(1).wait_for()
    page.locator("#history button").first.focus()
    page.keyboard.press("Enter")
    page.locator("#history li").nth(1).wait_for(state="detached")
    assert page.evaluate("document.activeElement.textContent") == "Remove"
    assert page.locator("#truth").is_hidden() and page.locator(".model").nth(2).locator("li").count() == 0
    page.locator("#clear").focus()
    page.keyboard.press("Enter")
    page.locator(".model").first.wait_for(state="detached")
    assert visit.messages == []


def test_what_comes_from_data_is_text(visit: Visit) -> None:
    """An id or a title that looks like HTML is shown, not run."""
    visit.take(1)
    assert EVIL in visit.page.locator("#history").inner_text()
    assert visit.page.locator("main img").count() == 0 and visit.messages == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_by_day_and_by_night(browser: Any, url: str, scheme: str) -> None:
    """Contrast of at least 4.5 (WCAG AA)."""
    opened = Visit(browser, url, SCREENS["desk"], scheme)
    opened.take(0)
    found = opened.page.evaluate(CONTRAST)
    opened.context.close()
    assert found == []


def test_every_field_has_a_name(visit: Visit) -> None:
    """A screen reader says what a field is for."""
    unnamed = """() => [...document.querySelectorAll('input, select, button')].filter(one =>
        !(one.textContent.trim() || one.getAttribute('aria-label') || (one.labels && one.labels.length)))
        .map(one => one.outerHTML)"""
    visit.take(0)
    assert visit.page.evaluate(unnamed) == []


def test_the_key_is_asked_for(browser: Any, serving: Path) -> None:
    """A guarded service shows nothing before; a wrong key is said to be wrong."""
    process = Process(f"bundle={serving}", DESHI_API_KEY=KEY)
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    try:
        page = context.new_page()
        page.goto(process.url)
        page.wait_for_selector("#key", state="visible")
        page.fill("#key", "wrong")
        page.keyboard.press("Enter")
        page.locator("#status", has_text="another one").wait_for()
        page.fill("#key", KEY)
        page.keyboard.press("Enter")
        page.wait_for_selector("#key", state="hidden")
        assert "40 items" in page.locator("#served").inner_text()
    finally:
        context.close()
        process.kill()
