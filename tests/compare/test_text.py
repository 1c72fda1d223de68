"""Values as text, and names that a Markdown or an HTML reader takes for names."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalr.compare.analysis import Claim, Entrant, Finding
from metalr.compare.metrics import Interval, Paired, Summary
from metalr.compare.report import text
from metalr.compare.report.table import Table
from metalr.compare.report.text import Count, Direction, Number, Share, Span, Steps, fenced, markdown, show


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (3, "3"),
        (0.123456, "0.1235"),
        (math.nan, "–"),
        (math.inf, "diverged"),
        (Number(2.0, 3, "runs"), "2 runs"),
        (Steps(math.inf), "> end"),
        (Steps(12.0), "12"),
        (Count(2, 3), "2 of 3"),
        (Share(0.25, 1.5), "25% of 1.5"),
        (Span(Number(0.001, 3), Number(1.0, 3)), "0.001 to 1"),
        (Direction("val/accuracy", "max"), "val/accuracy ↑"),
        (Interval(-0.5, 1.0), "[-0.5, 1]"),
        (Summary(3, 1.0, 0.5, 0.0, 2.0, None), "1 ± 0.5"),
        (Summary(1, 1.0, math.nan, 1.0, 1.0, None), "1"),
        (("digits", Number(0.1, 3)), "digits, 0.1"),
    ],
)
def test_values_are_shown(value, shown):
    assert show(value) == shown


@pytest.mark.parametrize("finding", [f for f in Finding if f is not Finding.NOTHING_TO_COMPARE])
def test_every_claim_has_words(finding):
    claim = Claim("w", Entrant("a"), Entrant("b", 3.0), Paired(2, 0.5, Interval(0.25, 0.75), 0.01), 0.02, finding)
    assert text.claim(claim) == f"{show(claim)}, 0.5 [0.25, 0.75]"
    assert (text.entrant(claim.candidate), text.entrant(claim.baseline)) == ("a, untuned (1 run)", "b, tuned (3 runs)")


@given(st.text(st.sampled_from("ab_ |*`<>[]\\~&#!()\n-")))
def test_a_name_stays_one_cell_of_a_table_and_has_no_markup(name):
    line = Table("", "", ["a", "b"], [[name, "x"]]).body().splitlines()
    assert len(line) == 3
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line[2])) == 3  # bars that no backslash takes the meaning from
    plain = re.sub(r"\\(.)", r"\1", markdown(name))
    assert plain == " ".join(name.split())
    assert not re.findall(r"(?<!\\)(?:\\\\)*[*`<>\[\]~&#]", markdown(name))


def test_names_as_they_are_usual_stay_readable():
    assert markdown("adult_mlp: val/loss, rate=0.1") == "adult_mlp: val/loss, rate=0.1"
    assert markdown("_private_ <b>") == r"\_private\_ \<b\>"


@given(st.text(st.sampled_from("a`\n")))
def test_nothing_in_a_block_of_code_ends_it(code):
    lines = fenced(code, "bash").split("\n")
    fence = re.match("`+", lines[0])[0]
    assert (lines[0], lines[-1]) == (f"{fence}bash", fence)
    assert all(fence not in line for line in lines[1:-1])
