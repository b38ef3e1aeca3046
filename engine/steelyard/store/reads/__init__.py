"""Reads on disk: parts, journal, recovery, reuse."""
