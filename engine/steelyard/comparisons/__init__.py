"""Verdicts from a run, a table or an import as one checked Arrow table."""
