"""How far a judge can be trusted: agreement, calibration, position, length, with intervals.

Every metric (`formulas`) is a formula over sums of numbers per pair (`sums`), so that a bootstrap
over instructions resamples sums and never goes back to the pairs (`bootstrap`).
"""
