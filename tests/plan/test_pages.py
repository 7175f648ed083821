"""The plans in the documents are what ``kind-jax plan`` says: ``make plans`` writes them."""

import re

import pytest

from studies import plans

ROWS = [(page, plan) for page in plans.PAGES for plan in page.plans]


@pytest.mark.parametrize("page", plans.PAGES, ids=lambda page: page.path.stem)
def test_a_page_has_the_commands_and_a_row_for_each(page):
    commands, head = plans.frame(page)
    block = plans.block(page)
    assert block.startswith(f"{commands}\n\n{head}\n"), "make plans"
    rows = block.removeprefix(f"{commands}\n\n{head}\n").splitlines()
    assert [row.split(" | ")[0] for row in rows] == [f"| {plan.name}" for plan in page.plans], "make plans"


def _same(found, written):
    """Equal but for figures, which another processor may move a little: XLA plans memory for the one at hand."""
    number = r"(?<![\w.])[\d,]+(?:\.\d+)?"
    assert re.sub(number, "#", found) == re.sub(number, "#", written), "make plans"
    figures = [[float(n.replace(",", "")) for n in re.findall(number, line)] for line in (found, written)]
    assert figures[0] == pytest.approx(figures[1], rel=0.02), "make plans"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("page", "plan"), [pytest.param(*row, id=row[1].arguments) for row in ROWS])
def test_a_row_is_what_the_command_says(page, plan):
    at = page.plans.index(plan) - len(page.plans)
    _same(plans.row(page, plan), plans.block(page).splitlines()[at])


def test_a_figure_that_differs_is_found():
    row = next(line for line in plans.block(plans.PAGES[0]).splitlines() if "| 4096 |" in line and "too small" in line)
    _same(row, row)
    for changed in (row.replace("4096", "5096"), row.replace("4096", "4095 x"), row.replace("too small", "1")):
        with pytest.raises(AssertionError):
            _same(changed, row)
