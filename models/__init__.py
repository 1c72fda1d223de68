"""Data modules of the experiments, each usable by class_path from YAML."""
