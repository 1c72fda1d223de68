"""What the tests of the README and of the pages share: their code, and a module as a reader would have one."""

import re
from pathlib import Path

import lightning as L
import torch

ROOT = Path(__file__).parents[1]


def blocks(page: Path, language: str = "python") -> list[str]:
    """The code of a page in a language, block by block."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def expanded(argument: str) -> list[str]:
    """Expands a brace as bash does: --config=a/{b,c/d}.yaml -> [--config=a/b.yaml, --config=a/c/d.yaml]."""
    before, _, rest = argument.partition("{")
    names, _, after = rest.partition("}")
    return [f"{before}{name}{after}" for name in names.split(",")]


class Small(L.LightningModule):
    """Sorts 4 numbers into 3 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1.0)
