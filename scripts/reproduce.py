"""Answers `python scripts/reproduce.py`; the command itself is the package scripts/reproduce/."""

raise SystemExit("error: start it in the project's folder: python -m scripts.reproduce")
