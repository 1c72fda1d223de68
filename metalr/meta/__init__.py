"""Meta-training: tasks, batched inner runs, gradient estimators, and the LightningModule that learns a policy."""

from metalr.meta.distribution import Component, Draw, TaskDistribution
from metalr.meta.estimator import FullES, GradientEstimator, antithetic_gradient
from metalr.meta.heldout import HeldOutScore, HeldOutTask
from metalr.meta.learner import MetaLearner
from metalr.meta.nets import MLP, ConvNet, Net, Quadratic, Transformer
from metalr.meta.rollout import Inner, Rollout, rollout
from metalr.meta.task import Split, Task, TaskFamily

__all__ = [
    "MLP",
    "Component",
    "ConvNet",
    "Draw",
    "FullES",
    "GradientEstimator",
    "HeldOutScore",
    "HeldOutTask",
    "Inner",
    "MetaLearner",
    "Net",
    "Quadratic",
    "Rollout",
    "Split",
    "Task",
    "TaskDistribution",
    "TaskFamily",
    "Transformer",
    "antithetic_gradient",
    "rollout",
]
