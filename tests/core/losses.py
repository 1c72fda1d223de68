"""Losses of runs, step by step."""

import math

import torch


def noise(count: int, seed: int = 0) -> list[float]:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)).tolist()


def descent(count: int, start: float = 2.3, end: float = 0.3, scale: float = 0.1, seed: int = 0) -> list[float]:
    rows = enumerate(noise(count, seed))
    return [end + (start - end) * math.exp(-5 * t / count) + scale * n for t, n in rows]


N = 1000

# Losses of many shapes, of which none diverges.
HEALTHY = {
    "descent": descent(N),
    "noisier than it is deep": descent(N, 2.3, 2.2, scale=0.5),
    "labels at random": [2.3 + 0.2 * n for n in noise(N)],
    "heavy tails": [1.0 + 0.1 * n / max(abs(m), 0.02) for n, m in zip(noise(N), noise(N, 1), strict=True)],
    "one exploding batch": [1e3 if t == 450 else x for t, x in enumerate(descent(N))],
    "an exploding batch now and then": [50.0 if t % 40 == 39 else x for t, x in enumerate(descent(N))],
    "overfitted and rising again": [x + 0.4 * t / N for t, x in enumerate(descent(N))],
    "negative likelihood": [x - 5 for x in descent(N)],
    "a critic: a dive, then a slow return": [
        -50 * (math.exp(-t / 400) - math.exp(-t / 20)) + n for t, n in enumerate(noise(N))
    ],
    "a generator that loses slowly": [0.7 + 4 * t / N + 0.3 * n for t, n in enumerate(noise(N))],
    "a generator that loses early": [0.7 + math.log1p(t / 20) + 0.3 * n for t, n in enumerate(noise(N))],
    "swinging": [1.0 + 0.5 * math.sin(t / 30) + 0.1 * n for t, n in enumerate(noise(N))],
    "an exploding start that is mended": [40 * math.exp(-t / 15) + x for t, x in enumerate(descent(N))],
    "constant": [1.0] * N,
}
