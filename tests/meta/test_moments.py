"""Signal and noise of estimates whose signal and noise are known."""

import pytest
import torch

from metalr.meta.moments import GradientMoments


def estimates(count: int, size: float, noise: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.full((50,), size / 50**0.5)
    return mean + noise / 50**0.5 * torch.randn(count, 50, generator=generator)


@pytest.mark.parametrize("window", [None, 200.0])
@pytest.mark.parametrize(("size", "noise"), [(1.0, 1.0), (0.3, 2.0), (0.0, 1.0)])
def test_signal_and_noise_are_found(window, size, noise):
    moments = GradientMoments(window)
    for gradient in estimates(2000, size, noise):
        moments.add(gradient)
    found = moments.signal_noise()
    assert found.noise == pytest.approx(noise**2, rel=0.05)
    assert found.signal == pytest.approx(size**2, abs=0.02 * noise**2 + 0.05 * size**2)
    assert found.ratio == pytest.approx(found.signal / found.noise)


def test_equal_weights_give_the_sample_covariance():
    gradients = estimates(7, 1.0, 1.0).double()
    moments = GradientMoments()
    for gradient in gradients:
        moments.add(gradient)
    noise = float(gradients.var(0).sum())
    found = moments.signal_noise()
    assert found.noise == pytest.approx(noise)
    assert found.signal == pytest.approx(float(gradients.mean(0).square().sum()) - noise / 7)


def test_the_signal_of_pure_noise_is_zero_on_average():
    signals = []
    for seed in range(60):
        moments = GradientMoments(8.0)
        for gradient in estimates(30, 0.0, 1.0, seed):
            moments.add(gradient)
        signals.append(moments.signal_noise().signal)
    assert abs(sum(signals) / len(signals)) < 0.01
    assert min(signals) < 0.0 < max(signals)


def test_old_estimates_lose_their_weight():
    moments = GradientMoments(10.0)
    for gradient in torch.cat((estimates(100, 3.0, 0.1), -estimates(100, 3.0, 0.1, 1))):
        moments.add(gradient)
    assert moments.signal_noise().signal == pytest.approx(9.0, rel=0.05)


def test_one_estimate_has_no_noise_to_measure():
    moments = GradientMoments()
    moments.add(torch.ones(3))
    with pytest.raises(ValueError, match="1 estimates"):
        moments.signal_noise()
    with pytest.raises(ValueError, match=r"window=1\.0"):
        GradientMoments(1.0)
