"""Files: read as text with an error that says why not, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from npuc.ir.errors import UserError


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a file under a temporary name beside it, then rename it; devices and pipes are written to.

    Raises:
        OSError: when the file system refuses; nothing is left behind; the error names ``path``.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    file = Path(os.path.realpath(path))
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, file)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def read_text(path: str | Path, kind: str = "cannot-read") -> str:
    """The text of a UTF-8 file.

    Raises:
        UserError: of the given kind, when it cannot be read or is not UTF-8.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise UserError(kind, f"cannot be read: {reason}", where=str(path)) from error
    return decoded(data, str(path), kind)


def decoded(data: bytes, where: str, kind: str = "cannot-read") -> str:
    """The text of a file's bytes.

    Raises:
        UserError: of the given kind, when they are not UTF-8.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        message = f"is not UTF-8 text: byte {data[error.start]:#04x} in line {line}"
        raise UserError(kind, message, where=where) from error
