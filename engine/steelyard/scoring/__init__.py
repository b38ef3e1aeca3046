"""The run: planner, session, feed, read, tally; resume, status, estimate."""
