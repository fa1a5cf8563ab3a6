"""The speed claims: `python -m benchmarks.<name>` measures and prints, last, one JSON line; `make bench` runs all."""
