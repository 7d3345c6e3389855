"""Lets the tests of this folder import its helpers and those of scheduling (tests are no package)."""

import sys
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER), *(str(FOLDER.parent / "unit" / part) for part in ("passes", "backends"))]
