"""Makes the tables and the report of a comparison: python -m scripts.summarise."""
