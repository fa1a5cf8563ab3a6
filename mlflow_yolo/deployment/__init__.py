"""Serving a promoted model: an engine that computes, a follower of its alias, and what stands before them."""
