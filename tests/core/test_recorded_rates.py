"""Rates are what they were before the code took another form: of every kind of optimizer, policy and place."""

import json

import pytest

from tests.core.recorded import OPTIMIZERS, PLACES, POLICIES, RECORD, rates, rounding

RECORDED = json.loads(RECORD.read_text())
ROUNDS_ALIKE = RECORDED["rounding"] == rounding()
PRECISION = {"host": 1e-12, "tensor": 1e-5}
"""Where exp and products round otherwise; with other instructions of one processor, rates differ by a tenth of that."""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rates_are_the_recorded_ones(optimizer, policy, place):
    """To the last bit, where the machine rounds as the one that recorded them."""
    recorded = RECORDED["rates"][f"{optimizer}/{policy}/{place}"]
    expected = recorded if ROUNDS_ALIKE else pytest.approx(recorded, rel=PRECISION[place], abs=0.0)
    assert rates(optimizer, policy, place) == expected
    assert len(set(recorded)) > len(recorded) / 2
