"""Rates are what they were before the code took another form: of every kind of optimizer, policy and place."""

import json

import pytest

from tests.core.recorded import OPTIMIZERS, PLACES, POLICIES, RECORD, rates

RECORDED = json.loads(RECORD.read_text())
PRECISION = {"host": 1e-11, "tensor": 1e-4}  # another processor's exp and matrix products round otherwise


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rates_are_the_recorded_ones(optimizer, policy, place):
    recorded = RECORDED[f"{optimizer}/{policy}/{place}"]
    assert rates(optimizer, policy, place) == pytest.approx(recorded, rel=PRECISION[place])
    assert len(set(recorded)) > len(recorded) / 2
