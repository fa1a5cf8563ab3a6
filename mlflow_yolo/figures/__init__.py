"""Data in, matplotlib figure or HTML page out; nothing is measured, read or sent here.

Figures are made with matplotlib's object interface alone: no pyplot, no backend, no rcParams, so that a caller's own
plotting is left as it is and threads may draw at the same time.
"""
