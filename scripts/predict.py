"""Answers `python scripts/predict.py`; the command itself is the package scripts/predict/."""

raise SystemExit("error: start it in the project's folder: python -m scripts.predict")
