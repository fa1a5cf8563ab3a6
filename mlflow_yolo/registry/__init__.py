"""Registered versions: what was measured travels with the bytes, gates judge it, aliases point to it."""
