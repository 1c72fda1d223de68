"""The inspector of a meta-training: it logs gradients, responses and runs, and changes none of them."""

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch.nn.utils import parameters_to_vector

from metalr.core.update_rule import bounds
from metalr.inspection import MetaInspector
from metalr.inspection.folder import load_history
from metalr.meta import ActionES, Component, HeldOutTask, MetaLearner, MetaTasksDataModule
from metalr.meta.families import MLPTasks, QuadraticTasks
from metalr.meta.moments import GradientMoments
from tests.compare.problem import Line, Points
from tests.inspection.fits import events

pytestmark = pytest.mark.slow


def make_data() -> MetaTasksDataModule:
    small = {"train_sizes": (32,), "valid_size": 16}
    families = {"quadratic": QuadraticTasks(**small), "mlp": MLPTasks(**small)}
    components = {name: Component(family, horizons=(5, 9)) for name, family in families.items()}
    heldout = [
        HeldOutTask("quadratic", families["quadratic"], "sgd", 8, instances=2, rates=3),
        HeldOutTask("mlp", families["mlp"], "adam", 8, instances=2, rates=3),
    ]
    return MetaTasksDataModule(components, heldout)


def make_learner() -> MetaLearner:
    return MetaLearner(
        hidden=(8, 4), estimator=ActionES(pairs=4), optimizer=lambda p: torch.optim.Adam(p, lr=0.01), support_batches=1
    )


class Gradients(L.Callback):
    """Notes every gradient with its family."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, torch.Tensor]] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.seen.append((pl_module.family, parameters_to_vector([p.grad for p in pl_module.policy.parameters()])))


def meta_fit(folder: Path, *callbacks: L.Callback, steps: int = 24) -> L.Trainer:
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        val_check_interval=8,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        logger=TensorBoardLogger(folder, name="meta"),
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(make_learner(), make_data())
    return trainer


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    gradients = Gradients()
    trainer = meta_fit(tmp_path_factory.mktemp("shown"), MetaInspector(tasks=1), gradients)
    return trainer, gradients.seen


def test_gradients_are_logged_by_family(shown):
    trainer, seen = shown
    found = events(Path(trainer.log_dir))
    families = {family for family, _ in seen}
    assert families == {"quadratic", "mlp"}
    for family in families:
        own = [gradient for name, gradient in seen if name == family]
        norms = [event.value for event in found.Scalars(f"gradient_norm/{family}")]
        assert norms == pytest.approx([float(gradient.norm()) for gradient in own], rel=1e-5)
        moments = GradientMoments(32.0)
        for gradient in own:
            moments.add(gradient)
        if len(own) >= 8:
            last = found.Scalars(f"signal_to_noise/{family}")[-1].value
            assert last == pytest.approx(moments.signal_noise().ratio, rel=1e-4, abs=1e-5)
    assert max(sum(name == family for name, _ in seen) for family in families) >= 8


def test_responses_and_runs_are_kept_and_drawn(shown):
    trainer, _ = shown
    assert set(events(Path(trainer.log_dir)).Tags()["images"]) == {"policy/responses_over_time", "policy/fixed_tasks"}
    history = load_history(Path(trainer.log_dir))
    assert history is not None
    assert history.step.tolist() == [8, 16, 24]
    assert history.features == trainer.model.policy.features
    (runs,) = history.runs
    assert runs.name == "quadratic"
    assert runs.learned.shape == runs.reference.shape == (3, len(runs.evaluation_steps))
    assert runs.lr.shape == (3, 8)
    moved = np.log(runs.lr[:, 0] / runs.rates)  # the reference begins at 1: what the policy did at the first step
    assert (np.abs(moved) <= max(bounds(0, 8)) + 1e-5).all()
    assert (runs.lr[1:, 0] > runs.lr[:-1, 0]).all()
    assert (runs.learned != runs.reference).any()


def test_it_changes_nothing(shown, tmp_path):
    plain = meta_fit(tmp_path)
    for one, other in zip(plain.model.policy.parameters(), shown[0].model.policy.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_resumed_history_goes_on(shown):
    first = next(c for c in shown[0].callbacks if isinstance(c, MetaInspector))
    second = MetaInspector()
    second.load_state_dict(first.state_dict())
    assert second.history is not None
    assert second.history.step.tolist() == [8, 16, 24]
    assert second.decimation.stride == first.decimation.stride


def test_it_shows_a_meta_learner_alone(tmp_path):
    trainer = L.Trainer(accelerator="cpu", logger=TensorBoardLogger(tmp_path), callbacks=[MetaInspector()])
    with pytest.raises(ValueError, match="MetaInspector shows a MetaLearner, and this is a Line"):
        trainer.fit(Line(), Points())
    with pytest.raises(ValueError, match=r"window=1"):
        MetaInspector(window=1)
