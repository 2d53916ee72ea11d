"""`python -m tests.end_to_end.no_space BYTES run ...`: skippipe, where no file can grow beyond so many bytes."""

from __future__ import annotations

import resource
import sys

from skippipe.__main__ import main

if __name__ == "__main__":
    # Python ignores the signal that comes with it, so that a write fails as on a full disk, with another number.
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
    sys.exit(main(sys.argv[2:]))
