"""Verdicts in SQL: views, live database, hand-off file, imported and calibrated verdicts."""
