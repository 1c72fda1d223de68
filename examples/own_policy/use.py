"""Trains the network with the shipped policy and with your own: `python use.py logs/own_policy/best.safetensors`."""

import sys

import lightning as L
import torch
import torch.nn.functional as F
from own_tasks import WaveClassifier, WaveDataModule

from metalr import MetaLRCallback


def validation_loss(policy: str, seed: int, steps: int = 150) -> float:
    """After a training of so many steps."""
    L.seed_everything(seed, verbose=False)
    model, data = WaveClassifier(), WaveDataModule()
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        callbacks=[MetaLRCallback(policy)],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        limit_val_batches=0,
    )
    trainer.fit(model, data)
    model.eval()
    with torch.no_grad():
        return float(F.cross_entropy(model.net(data.valid.tensors[0]), data.valid.tensors[1]))


if __name__ == "__main__":
    for policy in ("default", *sys.argv[1:]):
        losses = [validation_loss(policy, seed) for seed in range(3)]
        print(f"{policy}: validation loss {sum(losses) / len(losses):.3f} (mean of {len(losses)} seeds)")
