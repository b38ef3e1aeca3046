"""Verdicts as training data: what is kept, how it is paired, and TRL's dataset formats.

options (what a user decides) -> pairing (best and worst of each instruction) -> formats (rows of
texts as rows of a dataset) -> card (what the dataset says of itself). `overlap` finds instructions
that are too like each other or like an evaluation's.
"""
