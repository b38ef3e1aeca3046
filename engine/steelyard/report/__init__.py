"""One page about a run: what was judged, what came out, and how far it can be trusted."""
