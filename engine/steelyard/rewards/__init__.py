"""Reward functions with the signature of TRL's GRPO trainer (docs/rewards.md).

Importing them needs neither TRL nor torch nor an engine.
"""

from __future__ import annotations

from steelyard.rewards.judge import Judge
from steelyard.rewards.scoring_rules import brier, logarithmic

__all__ = ["Judge", "brier", "logarithmic"]
