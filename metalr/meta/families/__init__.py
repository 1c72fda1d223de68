"""The task families that ship: what the inner runs of meta-training train on.

They may import the rest of `metalr.meta` and `metalr.core`; no module imports them, for a YAML
names them by `class_path`.
"""

from metalr.meta.families.boosted_trees import BoostedTreesTasks
from metalr.meta.families.images import AugmentedImageTasks, ConvNetTasks
from metalr.meta.families.modules import ModuleTasks
from metalr.meta.families.pretrained import PretrainedLanguageTasks, PretrainedSceneTasks
from metalr.meta.families.quadratics import QuadraticTasks
from metalr.meta.families.recurrent import RecurrentTasks
from metalr.meta.families.regression import RegressionTasks
from metalr.meta.families.tables import TabularTasks
from metalr.meta.families.tokens import MaskedTransformerTasks, SentenceTasks, TransformerTasks
from metalr.meta.families.vectors import (
    AutoencoderTasks,
    DropoutTasks,
    FineTuningTasks,
    LargeBatchTasks,
    MLPTasks,
)

__all__ = [
    "AugmentedImageTasks",
    "AutoencoderTasks",
    "BoostedTreesTasks",
    "ConvNetTasks",
    "DropoutTasks",
    "FineTuningTasks",
    "LargeBatchTasks",
    "MLPTasks",
    "MaskedTransformerTasks",
    "ModuleTasks",
    "PretrainedLanguageTasks",
    "PretrainedSceneTasks",
    "QuadraticTasks",
    "RecurrentTasks",
    "RegressionTasks",
    "SentenceTasks",
    "TabularTasks",
    "TransformerTasks",
]
