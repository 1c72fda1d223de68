"""Submission to a SLURM cluster through submitit: `python train.py submit --cluster <yaml> -- <command>`.

A command becomes one job (`command`), a grid's cells a job array (`executor`); `slurm` alone talks to the cluster.
It may import `metalr.compare`, whose cells it runs, and nothing else of metalr; it needs submitit.
"""
