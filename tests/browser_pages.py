"""Pages in a real browser: Debian's chromium, without a window and without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE = 120_000
"""Milliseconds for one step: a busy machine is no failure."""

SCREENS = {"phone": (360, 740), "desk": (1280, 900)}
OUTSIDE = """() => [...document.querySelectorAll('body *')].filter(one => {
    const box = one.getBoundingClientRect();
    return box.width && !one.closest('.scroll') && !one.closest('svg') && !one.classList.contains('skip')
        && (box.right > innerWidth + 1 || box.left < -1);
}).map(one => one.outerHTML.slice(0, 120))"""
CONTRAST = """() => {
    const part = value => { value /= 255; return value <= .03928 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4; };
    const light = color => { const [r, g, b] = color.match(/[\\d.]+/g).map(Number);
        return .2126 * part(r) + .7152 * part(g) + .0722 * part(b); };
    const ground = one => { for (; one; one = one.parentElement) {
        const color = getComputedStyle(one).backgroundColor;
        if (!/, 0\\)$|transparent/.test(color)) return color; } return 'rgb(255, 255, 255)'; };
    const texts = 'h1, h2, h3, p, li, td, th, a, summary, figcaption, dt, strong, span, code, text';
    return [...document.querySelectorAll(texts)]
        .filter(one => one.textContent.trim() && one.getClientRects().length).map(one => {
            const style = getComputedStyle(one), svg = one.tagName === 'text';
            const [high, low] = [light(svg ? style.fill : style.color), light(ground(one))].sort((a, b) => b - a);
            return [(high + .05) / (low + .05), one.textContent.trim().slice(0, 40)]; })
        .filter(([ratio]) => ratio < 4.5);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, or a reason why there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium on the path: apt-get install chromium (.ci/run does)")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=FLAGS, timeout=PATIENCE)
        yield started
        started.close()


class Visit:
    """A page opened on a screen of some size, with its messages and requests."""

    def __init__(self, browser: Any, url: str, size: tuple[int, int], scheme: str = "light") -> None:
        width, height = size
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url)
