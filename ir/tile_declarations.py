"""Declarations of the `tile` dialect: packed weights and placed caches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import ClassVar, Self

from npuc.ir.arrays import int_array
from npuc.ir.assembly import (
    INT,
    INTS,
    SYMBOL_NAME,
    TYPE,
    Codec,
    Syntax,
    TextualOp,
    ints_text,
    is_identifier,
    parse_ints,
    print_attributes,
    syntax,
)
from npuc.ir.symbols import require_layers, require_symbol
from npuc.ir.tile_spec import integer, ints
from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    DictionaryAttr,
    FlatSymbolRefAttrConstr,
    IntegerAttr,
    MemRefType,
    StringAttr,
    SymbolNameConstraint,
    SymbolRefAttr,
    TensorType,
)
from xdsl.ir import Attribute, Operation
from xdsl.irdl import attr_def, irdl_op_definition, opt_attr_def, traits_def
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import SymbolOpInterface, SymbolUserOpInterface
from xdsl.utils.exceptions import VerifyException

# Recipe steps with one list of integers: the name of its entry.
STEP_LISTS = {"pad": "shape", "reshape": "shape", "permute": "perm"}


def _step_text(step: DictionaryAttr) -> str | None:
    """``pad [256, 256]``, ``transpose``, ``cast bf16``; None for anything else."""
    entries = dict(step.data)
    op = entries.pop("op", None)
    if not isinstance(op, StringAttr):
        return None
    if op.data == "transpose" and not entries:
        return "transpose"
    kind = entries.get("type")
    if op.data == "cast" and len(entries) == 1 and isinstance(kind, StringAttr) and is_identifier(kind.data):
        return f"cast {kind.data}"
    values = entries.get(STEP_LISTS.get(op.data, ""))
    if len(entries) != 1 or not isinstance(values, DenseArrayBase):
        return None
    return f"{op.data} {ints_text(ints(values))}"


def _print_recipe(printer: Printer, recipe: ArrayAttr[DictionaryAttr]) -> None:
    def print_step(step: DictionaryAttr) -> None:
        text = _step_text(step)
        if text is None:
            printer.print_attribute(step)
        else:
            printer.print_string(text)

    with printer.in_square_brackets():
        printer.print_list(recipe, print_step)


def _parse_step(parser: Parser) -> Attribute:
    op = parser.parse_optional_identifier()
    if op is None:
        return parser.parse_attribute()
    entries: dict[str, Attribute] = {"op": StringAttr(op)}
    if op == "cast":
        entries["type"] = StringAttr(parser.parse_identifier())
    elif op in STEP_LISTS:
        entries[STEP_LISTS[op]] = int_array(parse_ints(parser))
    return DictionaryAttr(entries)


RECIPE = Codec(
    lambda a: isinstance(a, ArrayAttr) and all(isinstance(step, DictionaryAttr) for step in a),
    _print_recipe,
    lambda parser: ArrayAttr(
        parser.parse_comma_separated_list(parser.Delimiter.SQUARE, lambda: _parse_step(parser))
    ),
)


def packed_shape(shape: Sequence[int], recipe: ArrayAttr[DictionaryAttr]) -> tuple[int, ...]:
    """The shape of a tensor of ``shape`` after the steps of a recipe.

    Raises:
        VerifyException: when a step does not apply.
    """
    shape = tuple(shape)
    for step in recipe:
        shape = _step_shape(shape, step)
    return shape


def _step_shape(shape: tuple[int, ...], step: DictionaryAttr) -> tuple[int, ...]:
    op = step.data.get("op")
    name = op.data if isinstance(op, StringAttr) else "?"
    if name == "cast":
        return shape
    if name == "transpose" and len(shape) >= 2:
        return (*shape[:-2], shape[-1], shape[-2])
    values = step.data.get(STEP_LISTS.get(name, ""))
    if values is None:
        raise VerifyException(f"recipe step {step} does not apply to shape {list(shape)}")
    new = ints(values)
    if name == "permute":
        fits = sorted(new) == list(range(len(shape)))
        new = tuple(shape[d] for d in new) if fits else new
    elif name == "reshape":
        fits = prod(new) == prod(shape)
    else:
        fits = len(new) == len(shape) and all(a >= b for a, b in zip(new, shape, strict=True))
    if not fits:
        raise VerifyException(f"recipe step {_step_text(step)} does not apply to shape {list(shape)}")
    return new


class _PacksWeight(SymbolUserOpInterface):
    """The weight exists, has the layers, and the recipe gives the declared shape."""

    def verify(self, op: Operation) -> None:
        assert isinstance(op, PackedOp)
        weight = require_symbol(op, op.weight, "weight", ("graph.weight",))
        name = op.weight.string_value()
        declared, kind = weight.attributes.get("layers"), weight.attributes.get("type")
        if op.layers is not None:
            require_layers(f"weight @{name}", declared, ints(op.layers))
        if isinstance(kind, TensorType):
            shape, packed = packed_shape(kind.get_shape(), op.recipe), op.type.get_shape()
            if shape != packed:
                raise VerifyException(f"the recipe gives shape {list(shape)}, the type has {list(packed)}")


@irdl_op_definition
class PackedOp(TextualOp):
    """How a weight is laid out for the target: `recipe` steps (pad, reshape, permute, cast) as data.

    `offset` is the byte offset in the weights region (of the first layer, for a layer weight), `stride`
    the bytes from one layer of the kind to the next, `layers` the model layers in that order.
    """

    name = "tile.packed"
    sym_name = attr_def(SymbolNameConstraint())
    weight = attr_def(FlatSymbolRefAttrConstr)
    type = attr_def(MemRefType)
    recipe = attr_def(ArrayAttr[DictionaryAttr])
    layers = opt_attr_def(DenseArrayBase)
    offset = attr_def(IntegerAttr)
    stride = attr_def(IntegerAttr)
    traits = traits_def(SymbolOpInterface(), _PacksWeight())
    SYNTAX: ClassVar[Syntax] = syntax(recipe=RECIPE, layers=INTS, offset=INT, stride=INT)

    def __init__(
        self,
        name: str,
        weight: str,
        type: MemRefType[Attribute],
        recipe: Sequence[DictionaryAttr],
        layers: Sequence[int] | None = None,
        offset: int = -1,
        stride: int = 0,
    ) -> None:
        attributes: dict[str, Attribute] = {
            "sym_name": StringAttr(name),
            "weight": SymbolRefAttr(weight),
            "type": type,
            "recipe": ArrayAttr(recipe),
            "offset": IntegerAttr(offset, 64),
            "stride": IntegerAttr(stride, 64),
        }
        if layers is not None:
            attributes["layers"] = int_array(layers)
        super().__init__(attributes=attributes)

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_symbol_name(self.sym_name.data)
        printer.print_string(" of ")
        printer.print_symbol_name(self.weight.string_value())
        printer.print_string(" : ")
        printer.print_attribute(self.type)
        said = self.print_keywords(printer)
        print_attributes(printer, self, ("sym_name", "weight", "type", *said))

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        attributes: dict[str, Attribute] = {"sym_name": parser.parse_symbol_name()}
        parser.parse_keyword("of")
        attributes["weight"] = SymbolRefAttr(parser.parse_symbol_name())
        parser.parse_punctuation(":")
        attributes["type"] = parser.parse_type()
        said = cls.parse_keywords(parser)
        return cls.build(attributes={**attributes, **said, **parser.parse_optional_attr_dict()})


@irdl_op_definition
class CacheOp(TextualOp):
    """Declares a cache of the artifact; addresses are bytes from the cache region's base.

    Layer l of `layers`, slot s: keys [length, heads, key_size] at `offset` + ordinal · `layer_stride` +
    s · `slot_stride`, values `value_offset` bytes after them.
    """

    name = "tile.cache_decl"
    sym_name = attr_def(SymbolNameConstraint())
    layers = attr_def(DenseArrayBase)
    key_type = attr_def(MemRefType)
    value_type = attr_def(MemRefType)
    slots = attr_def(IntegerAttr)
    offset = attr_def(IntegerAttr)
    layer_stride = attr_def(IntegerAttr)
    slot_stride = attr_def(IntegerAttr)
    value_offset = attr_def(IntegerAttr)
    traits = traits_def(SymbolOpInterface())
    SYNTAX: ClassVar[Syntax] = syntax(
        {"sym_name": SYMBOL_NAME},
        layers=INTS, key_type=TYPE, value_type=TYPE, slots=INT,
        offset=INT, layer_stride=INT, slot_stride=INT, value_offset=INT,
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        layers: Sequence[int],
        key_type: MemRefType[Attribute],
        value_type: MemRefType[Attribute],
        layout: Mapping[str, int],
    ) -> None:
        attributes: dict[str, Attribute] = {
            "sym_name": StringAttr(name),
            "layers": int_array(layers),
            "key_type": key_type,
            "value_type": value_type,
        }
        for key in ("slots", "offset", "layer_stride", "slot_stride", "value_offset"):
            attributes[key] = IntegerAttr(layout[key], 64)
        super().__init__(attributes=attributes)

    def verify_(self) -> None:
        name, keys, values = self.sym_name.data, self.key_type.get_shape(), self.value_type.get_shape()
        if len(keys) != 3 or len(values) != 3 or keys[:2] != values[:2]:
            raise VerifyException(
                f"cache @{name} has keys {list(keys)} and values {list(values)}, "
                "expected [length, heads, size] with equal lengths and heads"
            )
        if integer(self.slots) < 1:
            raise VerifyException(f"cache @{name} has {integer(self.slots)} slots, expected at least 1")
