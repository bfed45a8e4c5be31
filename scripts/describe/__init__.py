"""Says what a folder of images is taken for: python -m scripts.describe."""
