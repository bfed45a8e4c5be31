"""Answers `python scripts/export.py`; the command itself is the package scripts/export/."""

raise SystemExit("error: start it in the project's folder: python -m scripts.export")
