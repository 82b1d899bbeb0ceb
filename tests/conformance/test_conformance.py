"""The tables of ``docs/how-to/libraries.md`` are true: each library is tried on each form and kind of action."""

from pathlib import Path

import pytest
from table import FORMS, KINDS, NOT_INSTALLED, REASONS, ROWS, row

LINES = (Path(__file__).parents[2] / "docs" / "how-to" / "libraries.md").read_text().splitlines()


def lines_of(form):
    """The lines of the table of a form, by what they begin with."""
    start = next(number for number, line in enumerate(LINES) if line.startswith(f"| `{form}` |"))
    lines = LINES[start + 2 : next(number for number in range(start, len(LINES)) if not LINES[number].startswith("|"))]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines}


@pytest.mark.parametrize("form", FORMS)
def test_the_page_has_every_row_from_an_environment_with_all_libraries(form):
    assert list(lines_of(form)) == list(FORMS[form][0])
    assert [cell.strip() for cell in next(line for line in LINES if line.startswith(f"| `{form}` |")).split(" | ")[1:]][:-1] == list(KINDS)[
        :-1
    ]
    assert NOT_INSTALLED not in "\n".join(LINES)


def test_every_reason_is_explained():
    assert {line[3] for line in LINES if line.startswith("- (")} == set(REASONS.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("form", "use"), ROWS)
def test_the_row_is_what_happens(form, use):
    line = row(form, use)
    if NOT_INSTALLED in line:
        pytest.skip(f"{use}: not installed")
    assert line == lines_of(form)[use], "run python tests/conformance/table.py and copy its tables"
