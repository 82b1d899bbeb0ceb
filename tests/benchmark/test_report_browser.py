"""The report in headless Chromium: what a reader sees at two widths in two colour schemes. Without a browser these tests fail."""

import shutil

import pytest
from hand_made import other_setting, runs, setting
from traces import write_trace

from kd_env.benchmark.records import append
from kd_env.benchmark.report import write_report

pytestmark = pytest.mark.browser
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
LONG = "learner(prior_strength=1.0,router_start=True,another_option=0.25)"

OVERFLOW = """() => [...document.querySelectorAll("body *")]
  .filter((e) => !e.parentElement.closest(".scroll") && e.checkVisibility())
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5 || e.getBoundingClientRect().left < -0.5)
  .map((e) => e.outerHTML.slice(0, 100))"""

CONTRAST = """() => {
  const rgb = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return { channels: [r, g, b], a }; };
  const luminance = ({ channels }) => channels.map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const background = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.a > 0) return c; }
    return rgb("255, 255, 255"); };
  const texts = [...document.querySelectorAll("body *:not(script, style)")]
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) && e.checkVisibility());
  return texts.map((e) => {
    const style = getComputedStyle(e), colour = rgb(e instanceof SVGElement ? style.fill : style.color);
    const [low, high] = [luminance(colour), luminance(background(e))].sort((a, b) => a - b);
    return [(high + 0.05) / (low + 0.05), `${e.tagName} ${e.textContent.trim().slice(0, 60)}`];
  });
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    directory = tmp_path_factory.mktemp("report")
    for seed in range(5):
        write_trace(directory / "traces" / f"learner-{seed}.parquet")
    records = [
        *setting(),
        *runs(LONG, "reward gradient + train labels", 0.6),
        *other_setting("uniform", pool="others", task="t" * 60),
    ]
    for record in records:
        append(directory, record)
    return write_report(directory)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, report):
    contexts = []

    def opened(width, scheme="light"):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        page = contexts[-1].new_page()
        errors = []
        page.on("pageerror", lambda error: errors.append(error))
        page.goto(report.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
        assert not errors
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_is_wider_than_the_window_and_all_text_has_contrast(open_page, width, scheme):
    page = open_page(width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(OVERFLOW) == []
    contrasts = page.evaluate(CONTRAST)
    assert len(contrasts) > 200, "tables and figures have text"
    assert [(ratio, text) for ratio, text in contrasts if ratio < 4.5] == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    assert dark == (scheme == "dark")


def test_scores_are_in_view_beside_their_policy_on_a_narrow_screen(open_page):
    page = open_page(390)
    row = page.locator("section tr.best").first
    name, score = row.locator("th").bounding_box(), row.locator("td").first.bounding_box()
    assert score["x"] >= name["x"] + name["width"] - 1
    assert score["x"] + score["width"] <= 390
    container = page.locator("section .scroll").first
    container.evaluate("(e) => { e.scrollLeft = e.scrollWidth; }")
    assert row.locator("th").bounding_box()["x"] == pytest.approx(container.bounding_box()["x"], abs=1)
    assert row.locator("td").first.bounding_box()["x"] < 0


def test_tables_are_sorted_by_keyboard_and_by_click(open_page):
    page = open_page(1400)
    table = page.locator("section table.policies").first

    def column(place):
        return [text.strip() for text in table.locator(f"tbody tr > :nth-child({place})").all_text_contents()]

    assert column(2) == sorted(column(2), reverse=True)
    head = table.locator("thead th").nth(1)
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(2) == sorted(column(2))
    table.locator("thead th").first.locator("button").click()
    assert [head.get_attribute("aria-sort"), table.locator("thead th").first.get_attribute("aria-sort")] == ["none", "ascending"]
    assert [name.split("★")[0] for name in column(1)][:3] == ["entropy", "learner", LONG]


def test_the_text_box_filters_rows_and_figures(open_page):
    page = open_page(1400)
    page.fill("#filter-policy", "oracle LEARNER(")
    visible = {row.get_attribute("data-policy") for row in page.locator("section tr[data-policy]:visible").all()}
    assert visible == {"oracle", LONG}
    assert page.locator("#shown").text_content() == "2 of 7 policies"
    bright = {mark.get_attribute("data-policy") for mark in page.locator(".plot [data-policy]:not(.dim)").all()}
    assert bright == {"oracle", LONG}
    page.fill("#filter-policy", "")
    page.select_option("#filter-pool", "others")
    assert page.locator("section:visible").count() == 1
