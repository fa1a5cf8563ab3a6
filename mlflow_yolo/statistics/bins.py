"""The bins of every histogram: 64 powers of two for each sign. Known without torch, so that files can be read without.

A bin holds the values whose magnitude lies in [2^k, 2^(k+1)), for k from -40 to 23.
"""

import numpy as np
import numpy.typing as npt

N_BINS = 64
LOWEST = -40
EDGES: npt.NDArray[np.float64] = np.exp2(np.arange(LOWEST, LOWEST + N_BINS + 1, dtype=np.float64))
"""(65,) edges of the bins of one sign, magnitudes."""
