"""The command line: `python train.py fit --config own_policy.yaml`."""

from metalr.cli import MetaLRCLI

if __name__ == "__main__":
    MetaLRCLI()
