"""A model that is open and answers: workers, the line before them, and the alias that is followed."""
