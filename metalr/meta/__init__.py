"""Meta-training: task families, batched inner runs, gradient estimators, and the LightningModule that learns a policy.

Reads in the order of the flow: `families` -> `distribution` -> `rollout` -> `estimator` and its kinds -> `learner`;
`heldout` scores a policy, and `ship` puts it into the package. It imports `metalr.core`, and nothing else of metalr.
"""

from metalr.meta.action_es import ActionES
from metalr.meta.aggregation import Aggregator, CommonDescent, Mean
from metalr.meta.architectures import MLP, ConvNet, Quadratic, Transformer
from metalr.meta.datamodule import MetaTasksDataModule
from metalr.meta.distribution import Component, TaskBatch, TaskDistribution
from metalr.meta.estimator import Episode, Estimate, GradientEstimator
from metalr.meta.family import TaskFamily
from metalr.meta.heldout import HeldOutScore, HeldOutTask
from metalr.meta.hyperparameters import HyperparameterPrior, Hyperparameters
from metalr.meta.learner import MetaLearner
from metalr.meta.module_net import ModuleNet
from metalr.meta.net import Net
from metalr.meta.network_task import NetworkTask
from metalr.meta.parameter_es import NRES, PES, FullES, antithetic_gradient
from metalr.meta.recurrent import Recurrent
from metalr.meta.rollout import Rollout, Unroll, rollout
from metalr.meta.split import Split
from metalr.meta.task import InnerTraining, Measured, Optimizees, Task
from metalr.meta.truncated_backprop import TruncatedBackprop

__all__ = [
    "MLP",
    "NRES",
    "PES",
    "ActionES",
    "Aggregator",
    "CommonDescent",
    "Component",
    "ConvNet",
    "Episode",
    "Estimate",
    "FullES",
    "GradientEstimator",
    "HeldOutScore",
    "HeldOutTask",
    "HyperparameterPrior",
    "Hyperparameters",
    "InnerTraining",
    "Mean",
    "Measured",
    "MetaLearner",
    "MetaTasksDataModule",
    "ModuleNet",
    "Net",
    "NetworkTask",
    "Optimizees",
    "Quadratic",
    "Recurrent",
    "Rollout",
    "Split",
    "Task",
    "TaskBatch",
    "TaskDistribution",
    "TaskFamily",
    "Transformer",
    "TruncatedBackprop",
    "Unroll",
    "antithetic_gradient",
    "rollout",
]
