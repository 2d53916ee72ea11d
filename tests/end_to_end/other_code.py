"""`python -m tests.end_to_end.other_code run ...`: skippipe as a version whose sources are others."""

from __future__ import annotations

import sys

from skippipe.__main__ import main
from skippipe.runtime import equal, offer

if __name__ == "__main__":
    equal.code_digest = offer.code_digest = lambda: "0123456789abcdef"
    sys.exit(main(sys.argv[1:]))
