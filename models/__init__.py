"""Models of the experiments, each usable by class_path from YAML."""

from models.image_classifier import ImageClassifier
from models.networks import MLP, ConvNet

__all__ = ["MLP", "ConvNet", "ImageClassifier"]
