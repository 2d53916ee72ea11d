"""The array types of schedules and searches; docstrings give the shapes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
"""Nodes, stages, tasks, counts."""
Floats = NDArray[np.float64]
"""Seconds, milliseconds, GiB/s."""
Flags = NDArray[np.bool_]
