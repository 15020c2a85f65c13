"""The report and the site in a real browser: no errors, nothing overflows or overlaps, sorting and folding work.

Chromium of the system is used where there is one, else the one of ``playwright install chromium``.
"""

import os
import shutil
import subprocess
import sys

import pytest
import stories
from pages import ROOT

from limbeck.report.html import report_html

pytestmark = pytest.mark.slow

VIEWS = [(width, scheme) for width in (400, 1300) for scheme in ("light", "dark")]
HARMFUL = ("error", "warning")
"""Kinds of messages that no page may write to the console."""

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

OVERFLOWING = """() => {
  const clipped = element => {
    for (let parent = element.parentElement; parent && parent !== document.body; parent = parent.parentElement)
      if (getComputedStyle(parent).overflowX !== "visible") return true;
    return false;
  };
  return [...document.body.querySelectorAll("*")]
    .filter(element => element.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .filter(element => !clipped(element))
    .map(element => element.outerHTML.slice(0, 120));
}"""
"""Elements that reach beyond the right edge and are not inside something that scrolls."""

OVERLAPPING = """() => {
  const texts = [...document.querySelectorAll(".front-picture svg text")];
  const boxes = texts.map(text => text.getBoundingClientRect());
  const pairs = [];
  for (let i = 0; i < boxes.length; i++)
    for (let j = i + 1; j < boxes.length; j++) {
      const [a, b] = [boxes[i], boxes[j]];
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      // boxes of text have room above and below the letters
      if (wide > 1 && high > 0.35 * Math.min(a.height, b.height))
        pairs.push(`${texts[i].textContent} / ${texts[j].textContent}`);
    }
  return pairs;
}"""
"""Pairs of texts in the chart of the front whose boxes overlap."""

COLUMN = """index => [...document.querySelectorAll("section[aria-labelledby=table] tbody tr")]
  .map(row => row.cells[index].dataset.value)"""


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="pip install 'limbeck[test]'")
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    with api.sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"Chromium does not start; do: playwright install chromium ({str(error).splitlines()[0]})")
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser):
    """Open a file in a window of a width and color scheme; fail where the page reported an error."""
    contexts, messages = [], []

    def visit(path, width=1300, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: messages.append(f"{path.name}: {m.text}") if m.type in HARMFUL else None)
        page.on("pageerror", lambda error: messages.append(f"{path.name}: {error}"))
        page.goto(path.as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not messages


def assert_fits(page, width):
    assert page.evaluate("document.documentElement.scrollWidth") <= width, page.evaluate(OVERFLOWING)


# --- the report ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The page of a run with every section: a front, a failure, changed texts, an example of use."""
    history = {
        "title": "Augmented texts",
        "summary": "3 new texts for each text.",
        "counts": {"new texts kept": 1234},
        "samples": [{"original": "a lovely film " * 8, "changed": "a [MASK] film " * 8}],
    }
    summary = stories.run_summary(histories=(history,))
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report_html(summary, example="session = onnxruntime.InferenceSession(path)  # " + "long " * 40))
    return path


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_the_report_fits_its_window(open_page, report, width, scheme):
    page = open_page(report, width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    assert_fits(page, width)
    assert page.evaluate(OVERFLOWING) == []


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_texts_of_the_front_do_not_overlap(open_page, report, width, scheme):
    assert open_page(report, width, scheme).evaluate(OVERLAPPING) == []


def test_light_and_dark_differ_and_are_legible(open_page, report):
    script = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    shades = [
        [sum(map(int, color[4:-1].split(","))) for color in open_page(report, scheme=scheme).evaluate(script)]
        for scheme in ("light", "dark")
    ]
    (light_paper, light_ink), (dark_paper, dark_ink) = shades
    assert light_paper - light_ink > 400
    assert dark_ink - dark_paper > 400


@pytest.mark.parametrize("width", [400, 1300])
def test_every_column_sorts_both_ways(open_page, report, width):
    page = open_page(report, width)
    headings = page.locator("section[aria-labelledby=table] thead th")
    assert headings.count() > 6
    for index in range(headings.count()):
        orders = []
        for direction in ("ascending", "descending"):
            headings.nth(index).locator("button").click()
            assert headings.nth(index).get_attribute("aria-sort") == direction
            orders.append([value for value in page.evaluate(COLUMN, index) if value != ""])
        up, down = orders
        assert len(up) > 1
        assert down == up[::-1]
        if index:  # names, in the first column, are in the order of the browser's language
            assert up == sorted(up, key=float)


def test_everything_that_folds_opens_and_closes(open_page, report):
    page = open_page(report)
    folds = page.locator("details")
    assert folds.count() > 2
    for index in range(folds.count()):
        fold = folds.nth(index)
        before = fold.evaluate("details => details.open")
        for expected in (not before, before):
            fold.locator("summary").click()
            assert fold.evaluate("details => details.open") == expected


def test_a_point_says_what_it_is(open_page, report):
    page = open_page(report)
    page.locator(".front-picture .point.chosen").focus()
    assert "pruned 2.0x" in page.locator("#tip").inner_text()
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


# --- the site --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="pip install 'limbeck[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    return folder


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_pages_of_the_site_fit_their_window(open_page, site, width, scheme):
    paths = sorted(site.rglob("*.html"))
    assert len(paths) > 40
    page = open_page(site / "index.html", width, scheme)
    palette = {"light": "default", "dark": "slate"}[scheme]
    for path in paths:
        if path.name == "404.html":  # its links begin at the root of a server
            continue
        page.goto(path.as_uri())
        assert page.locator("body").get_attribute("data-md-color-scheme") == palette
        assert_fits(page, width)
