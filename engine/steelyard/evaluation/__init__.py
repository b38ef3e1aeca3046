"""Judged pairs against gold: fit, apply, evaluate."""
