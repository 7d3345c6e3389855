"""Lets the tests of this folder import its helpers and the model of planted faults (tests are no package)."""

import sys
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent / "faults")]
