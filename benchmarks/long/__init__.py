"""Runs of 20,000 steps on real data: four times the longest horizon of most meta-training."""
