"""Trains and scores comparisons: python -m scripts.reproduce."""
