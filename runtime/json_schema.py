"""Reading JSON into frozen dataclasses, strictly: the dataclass is the schema.

Field types may be int, str, float, bool, ``X | None``, ``tuple[X, ...]``, ``dict[str, X]``, other dataclasses
and Any. Integers are bounded to signed 64 bits; unknown, missing and wrongly typed keys are errors that name
their path.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from npuc.ir.errors import UserError

T = TypeVar("T")
MAX_INTEGER = 2**63 - 1


def _wrong(message: str, where: str) -> UserError:
    return UserError(
        "bad-json", message, where=where, remedy="the file is damaged or was not written by npuc"
    )


def parse_json(data: bytes, where: str) -> Any:
    """The value of a JSON text.

    Raises:
        UserError: ``bad-json`` when it is none (NaN and infinities are not JSON), or nested too deeply.
    """

    def refuse_constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(data.decode("utf-8"), parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"not valid JSON: {error}", where) from error


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value in our files: keys in the given order, one-space indent, ASCII."""
    return (json.dumps(value, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


def encode(value: Any) -> Any:
    """A dataclass instance as plain JSON values, keys in the order of its fields."""
    return _plain(asdict(value))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in cast("dict[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in cast("list[object]", value)]
    return value


@cache
def _schema(schema: type) -> dict[str, tuple[Any, bool]]:
    """Field name → (type, required)."""
    hints = get_type_hints(schema)
    declared = fields(schema)
    return {f.name: (hints[f.name], f.default is MISSING and f.default_factory is MISSING) for f in declared}


def decode(schema: type[T], value: Any, where: str) -> T:
    """An instance of the dataclass ``schema`` from parsed JSON.

    Args:
        schema: the dataclass.
        value: the parsed JSON value.
        where: the name of the value, for errors.

    Raises:
        UserError: ``bad-json``.
    """
    return cast("T", _decode(schema, value, where))


def _decode(schema: Any, value: Any, where: str) -> Any:
    origin = get_origin(schema)
    if schema is Any:
        return value
    if origin in (Union, types.UnionType):
        inner = next(option for option in get_args(schema) if option is not type(None))
        return None if value is None else _decode(inner, value, where)
    if origin is tuple:
        return tuple(
            _decode(get_args(schema)[0], v, f"{where}[{i}]") for i, v in enumerate(_list(value, where))
        )
    if origin is dict:
        return {k: _decode(get_args(schema)[1], v, f"{where}.{k}") for k, v in _object(value, where).items()}
    if is_dataclass(schema):
        return _decode_dataclass(cast("type", schema), _object(value, where), where)
    return _decode_scalar(schema, value, where)


def _decode_scalar(schema: type, value: Any, where: str) -> Any:
    if schema is float and type(value) is int:
        return float(value)
    if type(value) is not schema:
        raise _wrong(f"expected {schema.__name__}, found {type(value).__name__}", where)
    if schema is int and abs(value) > MAX_INTEGER:
        raise _wrong(f"{value} does not fit in 64 bits", where)
    return value


def _decode_dataclass(schema: type, value: Mapping[str, Any], where: str) -> Any:
    known = _schema(schema)
    for key in value:
        if key not in known:
            raise _wrong(f"unknown key {key!r}", where)
    for key, (_, required) in known.items():
        if required and key not in value:
            raise _wrong(f"key {key!r} is missing", where)
    return schema(**{key: _decode(known[key][0], entry, f"{where}.{key}") for key, entry in value.items()})


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(f"expected a list, found {type(value).__name__}", where)
    return cast("list[Any]", value)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(f"expected an object, found {type(value).__name__}", where)
    return cast("dict[str, Any]", value)
