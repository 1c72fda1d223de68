"""Every optimizer of torch and of pytorch_optimizer in a plain loop: it learns, or is refused in one line."""

import pytest

from metalr import MetaLR
from tests.regimes.learning import STEPS, final_loss, make_network, tuned_loss
from tests.regimes.optimizers import BEHIND, MAKERS, REFUSED


def _cases() -> list:
    behind = {name: pytest.mark.xfail(strict=True, reason=why) for name, why in BEHIND.items()}
    return [pytest.param(name, marks=behind.get(name, ())) for name in MAKERS if name not in REFUSED]


@pytest.mark.slow
@pytest.mark.parametrize("name", _cases())
def test_it_learns(name):
    """To at most 1.1 times the loss of the same optimizer at the best constant rate of four; Shampoo to 1.2 times."""
    make = MAKERS[name]
    learned = final_loss(make, make.lr, lambda optimizer: MetaLR(optimizer, STEPS).step)
    assert learned <= (1.2 if name == "shampoo" else 1.1) * tuned_loss(make)


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_line(name):
    with pytest.raises(ValueError, match=REFUSED[name]) as refusal:
        MetaLR(MAKERS[name](make_network()), STEPS)
    assert "\n" not in str(refusal.value)
