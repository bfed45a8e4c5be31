"""Answers `python scripts/select.py`; the command itself is the package scripts/select/."""

raise SystemExit("error: start it in the project's folder: python -m scripts.select")
