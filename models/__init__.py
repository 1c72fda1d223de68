"""Models of the experiments, each usable by `class_path` from YAML: `class_path: models.ImageClassifier`.

LightningModules for images, text and tables, and the networks that they train; they may import `datamodules` and
`metalr`, and are not in the wheel.
"""

from models.boosted_trees import BoostedTrees
from models.boosting_optimizer import Boosting
from models.image_classifier import ImageClassifier
from models.language_model import LanguageModel
from models.lora import LoRA
from models.networks import MLP, ConvNet
from models.question_answering import QuestionAnswering
from models.tabular_mlp import TabularMLP
from models.text_classifier import TextClassifier
from models.vision import VisionNet

__all__ = [
    "MLP",
    "BoostedTrees",
    "Boosting",
    "ConvNet",
    "ImageClassifier",
    "LanguageModel",
    "LoRA",
    "QuestionAnswering",
    "TabularMLP",
    "TextClassifier",
    "VisionNet",
]
