"""A real headless Chromium, and what a page does in it."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def opened(url, *, dark=False, width=1200, offline=True):
    """A page in Chromium, with lists of its console errors and of its requests to other places."""
    sync_api = pytest.importorskip("playwright.sync_api")
    browser_path = next(filter(None, map(shutil.which, NAMES)), None)
    if browser_path is None:
        pytest.skip("Chromium is not installed (apt install chromium)")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        try:
            context = browser.new_context(
                viewport={"width": width, "height": 900},
                color_scheme="dark" if dark else "light",
                offline=offline,
            )
            page = context.new_page()
            page.complaints, page.requested = [], []
            page.on("pageerror", lambda error: page.complaints.append(str(error)))
            page.on("console", lambda line: _note(page.complaints, line))
            page.on("request", lambda request: page.requested.append(request.url))
            page.goto(url)
            yield page
        finally:
            browser.close()


def _note(complaints, line):
    if line.type == "error":
        complaints.append(line.text)


def contrast(page, selector):
    """The lowest contrast, from 1 to 21, of the texts of elements with what is behind them."""
    return page.evaluate(
        """(selector) => {
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((x) => {
      x = x / 255;
      return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$/.test(color) && color !== "transparent") return color;
    }
    return "rgb(255, 255, 255)";
  };
  return Math.min(...[...document.querySelectorAll(selector)].map((element) => {
    const pair = [light(getComputedStyle(element).color), light(behind(element))];
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  }));
}""",
        selector,
    )
