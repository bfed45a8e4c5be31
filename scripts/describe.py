"""Answers `python scripts/describe.py`; the command itself is the package scripts/describe/."""

raise SystemExit("error: start it in the project's folder: python -m scripts.describe")
