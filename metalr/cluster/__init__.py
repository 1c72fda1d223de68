"""Submission to a cluster, through submitit."""
