"""The suite's tasks: a network with its data, or boosted trees, as one problem that a plain loop trains."""

from __future__ import annotations

from benchmarks.final import data, networks
from benchmarks.suites.boosting import BoostingProblem
from benchmarks.suites.problem import NetworkProblem, RegressionProblem
from benchmarks.suites.suite import Novelty, Task

USUAL_LR = {"sgd": 0.1, "adamw": 1e-3, "boosting": 0.1}
"""Middle of the range of initial rates, by optimizer."""

TASKS: dict[str, Task] = {
    "photograph": Task(
        "network of sines that fits a photograph, squared error, batch 256",
        (80, 400),
        lambda root, seed: RegressionProblem(networks.Siren, data.photograph(root), 256, seed),
        Novelty("new", "new"),
        ("adamw",),
        metric="R2",
    ),
    "diabetes": Task(
        "residual perceptron with layer norm on diabetes, squared error, batch 32",
        (60, 300),
        lambda root, seed: RegressionProblem(lambda: networks.ResidualPerceptron(10), data.diabetes(root), 32, seed),
        Novelty("new", "kind drawn"),
        metric="R2",
    ),
    "series": Task(
        "GRU that forecasts a noisy Mackey-Glass series, squared error, batch 32",
        (60, 300),
        lambda root, seed: RegressionProblem(networks.Forecaster, data.series(root), 32, seed),
        Novelty("new", "new: none is recurrent"),
        metric="R2",
    ),
    "vit": Task(
        "2-layer vision transformer, width 48, on CIFAR-10 at 32x32, batch 32",
        (50, 250),
        lambda root, seed: NetworkProblem(networks.VisionTransformer, data.cifar10(root), 32, seed),
        Novelty("new; the development suite has it at 16x16", "new on images", "drawn", "50: shorter than drawn"),
        ("adamw",),
    ),
    "rotations": Task(
        "depthwise ConvNeXt, width 32, on the rotations of ImageNet's photographs, batch 16",
        (40, 200),
        lambda root, seed: NetworkProblem(networks.ConvNeXt, data.rotations(root), 16, seed),
        Novelty("new", "new", "drawn", "40: shorter than drawn"),
    ),
    "letters": Task(
        "LSTM, width 64, on the letters of SST-2's reviews, batch 16 x 48 letters",
        (60, 300),
        lambda root, seed: NetworkProblem(networks.LetterLSTM, data.reviews(root), 16, seed),
        Novelty("new; the development suite classifies these reviews", "new: none is recurrent"),
    ),
    "pieces": Task(
        "2-layer GPT-2, width 48, on MultiNLI's premises, batch 16 x 24 word pieces",
        (50, 250),
        lambda root, seed: NetworkProblem(networks.GPT2, data.premises(root), 16, seed),
        Novelty("new", "kind drawn; a vocabulary of this size new", "drawn", "50: shorter than drawn"),
        ("adamw",),
    ),
    "questions": Task(
        "two bags of words and a perceptron on Quora's pairs of questions, batch 64",
        (100, 500),
        lambda root, seed: NetworkProblem(networks.PairOfBags, data.questions(root), 64, seed),
        Novelty("new", "new"),
        ("adamw",),
        metric="AUC",
    ),
    "vehicles": Task(
        "XGBoost, depth 4 with half of the rows a tree, on 4,000 of CIFAR-10's images as 192 colours",
        (40, 200),
        lambda root, seed: BoostingProblem(*data.vehicles(root), 4, seed, subsample=0.5),
        Novelty("new: numbers of images", "trees of this depth drawn"),
        ("boosting",),
        metric="AUC",
    ),
}
"""By name."""
