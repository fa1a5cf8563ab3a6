"""May a version ship: what was measured of it, held against limits, one gate a question."""
