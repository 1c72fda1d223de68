"""Whether a metric has been logged, and whether it reaches a threshold."""

import math
from types import SimpleNamespace

import pytest

from metalr.lightning.logged_metrics import check_logged, reaches


def test_a_metric_that_is_not_logged_is_named_beside_those_that_are():
    trainer = SimpleNamespace(callback_metrics={"val/loss": 0.5, "val/acc": 0.9})
    check_logged(trainer, ["val/acc", "val/loss"], "validation")
    message = "metric val/los is not logged in validation: choose of val/acc, val/loss"
    with pytest.raises(ValueError, match=message):
        check_logged(trainer, ["val/acc", "val/los"], "validation")


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
