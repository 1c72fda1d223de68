"""Boosted trees that need no CLI."""

from models import BoostedTrees, Boosting


class Trees(BoostedTrees):
    """With an optimizer of its own, as the CLI gives it one."""

    def configure_optimizers(self):
        return Boosting(self.parameters(), lr=0.3)
