"""A protocol in a judge's words: judging spec, forms, token rows in prefix order."""
