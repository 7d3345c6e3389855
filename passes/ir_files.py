"""Textual IR in files."""

from __future__ import annotations

from pathlib import Path

from npuc.ir.diagnostics import user_error
from npuc.ir.files import read_text
from npuc.ir.parsing import IRParser
from npuc.passes.pipeline import context
from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.exceptions import ParseError, VerifyException


def parse_ir(path: Path) -> ModuleOp:
    """A module from a file of textual IR.

    Raises:
        UserError: when the file cannot be read, parsed or verified; its notes show what is around the fault.
    """
    text = read_text(path)
    try:
        module = IRParser(context(), text, str(path)).parse_module()
        module.verify()
    except (ParseError, VerifyException) as error:
        found = user_error(error)
        assert found is not None
        found.kind = "bad-ir"
        if not found.where.startswith(str(path)):  # of a verifier's error it is the checkpoint module
            found.where = ": ".join(filter(None, (str(path), found.where)))
        raise found from error
    return module
