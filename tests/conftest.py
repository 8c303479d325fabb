"""Real data sets, where they lie beside the checkout: tests that need them skip elsewhere, and never download."""

import os
from pathlib import Path

BESIDE = Path(__file__).parents[1].parent / "shared" / "data"
if BESIDE.is_dir():
    os.environ.setdefault("ESPALIER_DATA", str(BESIDE))
