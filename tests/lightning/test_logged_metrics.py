"""Whether a logged metric reaches a threshold."""

import math

import pytest

from metalr.lightning.logged_metrics import reaches


@pytest.mark.parametrize(
    ("value", "mode", "reached"),
    [
        (0.4, "min", True),
        (0.5, "min", True),
        (0.6, "min", False),
        (0.4, "max", False),
        (0.5, "max", True),
        (0.6, "max", True),
        (math.nan, "min", False),
        (math.nan, "max", False),
    ],
)
def test_a_value_reaches_a_threshold_where_it_is_at_least_as_good(value, mode, reached):
    assert reaches(value, 0.5, mode) is reached
