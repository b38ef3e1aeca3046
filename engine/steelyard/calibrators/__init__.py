"""Calibration: raw preferences and gold -> calibrators, which are plain data, and back.

`features` what a calibrator sees of a pair; `linear` and `steps` the two kinds of curves, each with
its NumPy form and its SQL side by side; `ties` the probability of a tie; `fitting` the methods by
name; `selection` the choice among them; `selective` when to abstain; `drift` when not to trust;
`record` the calibrator itself.
"""
