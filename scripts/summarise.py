"""Answers `python scripts/summarise.py`; the command itself is the package scripts/summarise/."""

raise SystemExit("error: start it in the project's folder: python -m scripts.summarise")
