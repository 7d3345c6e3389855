"""Modules on which passes once went wrong; `make fuzz` adds files to found/."""

from pathlib import Path

import findings
import pytest
from differential import Fault, Refused

FILES = sorted(findings.FOLDER.glob("*.mlir"))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_found(path: Path, request: pytest.FixtureRequest) -> None:
    kept = findings.Kept.read(path)
    if kept.xfail:
        request.applymarker(pytest.mark.xfail(reason=kept.xfail, strict=True, raises=(Fault, Refused)))
    if kept.refused:
        with pytest.raises(Refused, match=kept.refused):
            kept.case.check()
    else:
        kept.case.check()
