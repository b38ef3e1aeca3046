"""From preferences to win rates and ratings, with intervals: pure functions over columns."""
