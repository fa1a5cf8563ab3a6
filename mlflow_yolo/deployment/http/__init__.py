"""The server: what a request may ask, what it is answered, and what is counted."""
