"""Ranks checkpoints without labels of the target: python -m scripts.select."""
