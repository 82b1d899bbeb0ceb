"""The structure and the colours of report.html, without a browser."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hand_made import other_setting, runs, setting
from traces import write_trace

import kd_env.benchmark
from kd_env.analysis.palette import COLOURS, DARK
from kd_env.benchmark.records import append
from kd_env.benchmark.report import write_report
from kd_env.benchmark.report_page import leading_number

CSS = (Path(kd_env.benchmark.__file__).parent / "report.css").read_text()
VOID = {"meta", "input", "wbr", "br"}


class Element:
    """An element of a page with its text."""

    def __init__(self, tag, attributes, parent):
        self.tag, self.attributes, self.parent, self.children, self.text = tag, attributes, parent, [], ""

    def all(self, tag, **attributes):
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        own = [self] if self.tag == tag and wanted.items() <= self.attributes.items() else []
        return own + [element for child in self.children for element in child.all(tag, **attributes)]

    def content(self):
        return self.text + "".join(child.content() for child in self.children)


class Page(HTMLParser):
    """Builds a tree and refuses tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.root = self.at = Element("page", {}, None)
        self.feed(text)
        assert self.at is self.root, f"<{self.at.tag}> is not closed"

    def handle_starttag(self, tag, attrs):
        element = Element(tag, dict(attrs), self.at)
        self.at.children.append(element)
        if tag not in VOID:
            self.at = element

    def handle_startendtag(self, tag, attrs):
        self.at.children.append(Element(tag, dict(attrs), self.at))

    def handle_endtag(self, tag):
        assert self.at.tag == tag, f"</{tag}> closes <{self.at.tag}>"
        self.at = self.at.parent

    def handle_data(self, data):
        self.at.text += data


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    directory = tmp_path_factory.mktemp("report")
    write_trace(directory / "traces" / "learner-0.parquet")
    for record in [*setting(), *other_setting("uniform", pool="others")]:
        append(directory, record)
    return Page(write_report(directory).read_text()).root


def score_table(page):
    return page.all("table", class_="policies")[1]  # the first is that of all settings


@pytest.mark.long
def test_policies_are_in_the_order_of_their_score(page):
    rows = [row.attributes["data-policy"] for row in score_table(page).all("tr") if "data-policy" in row.attributes]
    assert rows == ["oracle", "learner", "router", "lr_dev(c=1)", "entropy", "uniform"]


def test_the_highest_mean_is_marked_in_words_and_style(page):
    (best,) = score_table(page).all("tr", class_="best")
    assert best.attributes["data-policy"] == "learner"
    assert "★ highest mean" in best.content()
    (claim, *_) = page.all("p", class_="claim")
    assert "learner is above 4 of 4" in claim.content()


@pytest.mark.long
def test_a_policy_without_an_interval_shows_its_mean_alone(tmp_path):
    append(tmp_path, runs("uniform", "nothing", 0.4, seeds=1)[0])
    root = Page(write_report(tmp_path).read_text()).root
    cells = [cell.content() for cell in root.all("table", class_="policies")[0].all("td")]
    assert cells[0] == "0.400"
    assert not root.all("tr", class_="best"), "one policy is not the best of anything"


def test_columns_are_sorted_by_buttons_and_by_numbers(page):
    table = score_table(page)
    heads = table.all("th", scope="col")
    assert all(len(head.all("button", type="button")) == 1 for head in heads)
    assert [head.attributes["aria-sort"] for head in heads] == ["none", "descending", *["none"] * (len(heads) - 2)]
    learner = next(row for row in table.all("tr") if row.attributes.get("data-policy") == "learner")
    values = [cell.attributes.get("data-value") for cell in learner.all("td")]
    assert [round(float(value), 3) for value in values[:3]] == [0.754, 5, 0.754]
    assert values[-1] is None, "access classes are sorted as text"
    assert [leading_number(text).value for text in ("1,234 s", "−0.5 [−1, 0]", "–", "rival")] == ["1234", "-0.5", "", ""]


def test_the_page_is_filtered_by_what_differs(page):
    assert [select.attributes["id"] for select in page.all("select")] == ["filter-pool", "filter-access"]
    assert len(page.all("input", type="search")) == 1
    pools = {section.attributes["data-pool"] for section in page.all("section")}
    assert pools == {"experts", "others"}
    assert [option.content() for option in page.all("select", id="filter-pool")[0].all("option")] == ["all", "experts", "others"]


def test_tables_and_figures_scroll_in_containers_that_the_keyboard_reaches(page):
    wide = page.all("table") + page.all("svg", class_="plot")
    assert len(wide) == 3 + 2 + 2 + 1 + 6, "three tables of scores, two of costs, two of values, one of versions; six figures"
    for element in wide:
        container = element.parent
        assert container.attributes["class"] == "scroll"
        assert container.attributes["tabindex"] == "0"
        assert container.attributes["aria-label"]


def test_figures_follow_the_page(page):
    for plot in page.all("svg", class_="plot"):
        styles = " ".join(element.attributes.get("style", "") for tag in ("path", "text", "use", "g") for element in plot.all(tag))
        assert not re.search(r"#[0-9a-f]{3,6}", styles), "all colours are variables"
        assert "var(--c" in styles
        assert plot.all("text"), "text is text"
        assert plot.attributes["aria-label"]
    marks = {mark.attributes["data-policy"] for plot in page.all("svg") for mark in plot.all("g") if "data-policy" in mark.attributes}
    assert marks == {"oracle", "learner", "router", "lr_dev(c=1)", "entropy", "uniform"}


def test_a_policy_has_one_colour_in_tables_and_figures(page):
    for policy in ("learner", "uniform"):
        swatches = {line.attributes["stroke"] for row in page.all("tr", data_policy=policy) for line in row.all("line")}
        drawn = set()
        for mark in (mark for plot in page.all("svg", class_="plot") for mark in plot.all("g", data_policy=policy)):
            drawn |= set(re.findall(r"var\(--c\d\)", " ".join(e.attributes.get("style", "") for t in ("path", "use") for e in mark.all(t))))
        assert drawn == swatches
        assert len(drawn) == 1


def test_no_width_is_fixed_and_the_policy_stays_in_view():
    assert not re.search(r"(?<![-\w])width:\s*\d+(px|pt|cm)", CSS)
    sticky = re.search(r"\.policies tr > :first-child \{([^}]*)\}", CSS)[1]
    assert "position: sticky; left: 0" in sticky
    assert re.search(r"\.scroll \{[^}]*overflow-x: auto", CSS)
    assert "overflow-wrap: anywhere" in re.search(r"h1, h2[^}]*", CSS)[0]


def variables(block):
    return dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block))


def contrast(colour, behind):
    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(colour), luminance(behind)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_have_contrast_in_both_schemes(scheme):
    light, dark = CSS.split("@media (prefers-color-scheme: dark)")[:2]
    colours = variables(light if scheme == "light" else dark.split("* {")[0])
    assert set(colours) == {"page", "ink", "faint", "rule", "soft", "accent", "best"}
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for text in ("ink", "faint", "accent"):
        for background in ("page", "soft", "best"):
            assert contrast(colours[text], colours[background]) >= 4.5, (text, background)
    for policy in COLOURS if scheme == "light" else DARK:
        assert contrast(policy, colours["page"]) >= 4.5


@pytest.mark.long
def test_the_choice_by_validation_comes_before_the_claim_on_test(tmp_path):
    append(tmp_path, *setting())
    text = write_report(tmp_path).read_text()
    assert 0 < text.index("Among policies that are not privileged, ") < text.index('<p class="claim">')


@pytest.mark.long
def test_close_scores_and_long_names_stay_as_they_are(tmp_path):
    policies = ["learner(rate=0.0001)", "learner(rate=0.0005)"]
    for number, policy in enumerate(policies):
        for run in runs(policy, "reward gradient", 0.9 + 0.004 * number, seeds=2):
            append(tmp_path, {**run, "test": 0.9 + 0.004 * number + 0.001 * run["seed"]})
    root = Page(write_report(tmp_path).read_text()).root
    figure = root.all("svg", class_="plot")[0]
    ticks = [text.content().strip() for text in figure.all("text") if text.content().strip()[0].isdigit()]
    assert len(set(ticks)) == len(ticks) > 3
    named = {group.attributes["data-policy"] for group in figure.all("g") if "data-policy" in group.attributes}
    assert named == set(policies)
