"""How far a judge can be trusted: agreement, calibration, position, length, with intervals.

Every metric is a formula over sums of numbers a pair (`sums`), so that a bootstrap over
instructions resamples sums and never goes back to the pairs (`report`).
"""
