"""A prior that takes smaller steps on pretrained weights, by a factor for each unit of their structure."""

from __future__ import annotations

import torch

from metalr.core.policy import LRPolicy

STEP_FEATURES = {"step_size": 0.4, "step_size_reference": 0.4, "predicted_change": 0.25}
"""Features that show how large a step is, with what each gains where the step grows by a nat (`features.observe`)."""


@torch.no_grad()
def expect_smaller_steps(policy: LRPolicy, nats: float) -> None:
    """Makes a policy see larger steps where the first weights have structure, so that it takes smaller ones there.

    The first layer reads `weight_structure` as it reads a shift of `STEP_FEATURES`: what the policy does at a structure
    x is what it did for random weights, at steps that are smaller by a factor of exp(nats * x), x as the feature shows
    it. For random weights nothing changes.

    Args:
        policy: that reads `weight_structure`; changed in place.
        nats: for each unit of the feature.

    Raises:
        ValueError: for a policy that does not read it.

    Example:
        >>> from metalr import LRPolicy
        >>> policy = LRPolicy(["step_size", "weight_structure"])
        >>> expect_smaller_steps(policy, 0.5)
    """
    if "weight_structure" not in policy.features:
        raise ValueError(f"nats={nats}: the policy does not read weight_structure; add it to features")
    columns = next(policy.layers.parameters()).T  # of the first layer
    structure = columns[policy.features.index("weight_structure")]
    for name, gain in STEP_FEATURES.items():
        if name in policy.features:
            structure += nats * gain * columns[policy.features.index(name)]
