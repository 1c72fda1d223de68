"""Boosted trees on noisy and on clean labels, of two classes and of ten, and for regression."""
