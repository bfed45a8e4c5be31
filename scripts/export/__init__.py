"""Exports a checkpoint for other runtimes: python -m scripts.export."""
