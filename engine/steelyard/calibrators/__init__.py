"""Calibration: from raw preferences and gold to calibrators, which are plain data.

`features`: what a calibrator sees of a pair. `linear` and `piecewise`: the two kinds of curves,
each with its NumPy form next to its SQL. `ties`: the probability of a tie. `methods`: how each
curve is fitted. `cross_validation`: the choice among methods. `abstention`: which verdicts to
trust; `looks`: the same over repeated fits. `gold_trace`: which gold a calibrator was fitted to.
`calibrator`: all of it as one file.
"""
