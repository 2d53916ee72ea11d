"""The simulation kernels of simulate.py, compiled once and cached."""

from __future__ import annotations

import numba

from skippipe import simulate

first_come_first_served = numba.njit(cache=True)(simulate.first_come_first_served)
follow_order = numba.njit(cache=True)(simulate.follow_order)
