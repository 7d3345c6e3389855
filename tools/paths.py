"""Types of flags that name files: what cannot be read or written is told before any work is done."""

from __future__ import annotations

import os
from pathlib import Path

from npuc.ir.errors import UserError


def existing(text: str) -> Path:
    """A file or directory that is read.

    Raises:
        UserError: ``missing-file``.
    """
    path = Path(text)
    try:
        path.stat()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise UserError("missing-file", reason, where=text) from error
    if not os.access(path, os.R_OK):
        raise UserError("missing-file", "cannot be read: permission denied", where=text)
    return path


def writable(text: str) -> Path:
    """A file that is written: it may exist, and its directory does.

    Raises:
        UserError: ``cannot-write``.
    """
    path = Path(text)
    reason = ""
    if path.is_dir():
        reason = "is a directory"
    elif not path.parent.is_dir():
        reason = f"there is no directory {path.parent}"
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        reason = "permission denied"
    if reason:
        raise UserError("cannot-write", f"cannot be written: {reason}", where=text)
    return path


def directory(text: str) -> Path:
    """A directory that files are written to, made where it is missing.

    Raises:
        UserError: ``cannot-write``.
    """
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise UserError("cannot-write", "is a file, expected a directory", where=text)
    return path
