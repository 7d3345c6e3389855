"""Weights, caches and layer bodies of the `graph` dialect: what operations refer to by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from npuc.ir.arrays import int_array
from npuc.ir.assembly import (
    INT,
    INTS,
    SYMBOL,
    SYMBOL_NAME,
    TYPE,
    Syntax,
    TextualOp,
    ints_text,
    parse_ints,
    parse_values,
    print_attributes,
    print_values,
    syntax,
)
from npuc.ir.graph_elementwise import GraphOp
from npuc.ir.graph_types import (
    CTX,
    check_element,
    check_rank,
    check_shape,
    element_of,
    index_of,
    ints,
    shape_of,
    tensor_type,
)
from npuc.ir.symbols import require_function, require_layers, require_symbol
from xdsl.dialects.builtin import (
    AnyFloat,
    ArrayAttr,
    DenseArrayBase,
    DictionaryAttr,
    FlatSymbolRefAttrConstr,
    IntegerAttr,
    StringAttr,
    SymbolNameConstraint,
    SymbolRefAttr,
    TensorType,
)
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    attr_def,
    irdl_op_definition,
    operand_def,
    opt_attr_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect, SymbolOpInterface, SymbolUserOpInterface
from xdsl.utils.exceptions import VerifyException


@irdl_op_definition
class WeightOp(TextualOp):
    """Declares a weight: type, and where its bytes are (one source, or one per listed layer)."""

    name = "graph.weight"
    sym_name = attr_def(SymbolNameConstraint())
    type = attr_def(TensorType)
    sources = attr_def(ArrayAttr[DictionaryAttr])
    layers = opt_attr_def(DenseArrayBase)
    traits = traits_def(SymbolOpInterface())

    def __init__(
        self,
        name: str,
        type: TensorType[Attribute],
        sources: Sequence[DictionaryAttr],
        layers: Sequence[int] | None = None,
    ) -> None:
        attributes: dict[str, Attribute] = {
            "sym_name": StringAttr(name),
            "type": type,
            "sources": ArrayAttr(sources),
        }
        if layers is not None:
            attributes["layers"] = int_array(layers)
        super().__init__(attributes=attributes)

    @property
    def layer_list(self) -> tuple[int, ...] | None:
        """Model layer of each source, or None for a weight outside the layers."""
        return None if self.layers is None else ints(self.layers)

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_symbol_name(self.sym_name.data)
        printer.print_string(" : ")
        printer.print_attribute(self.type)
        if self.layers is not None:
            printer.print_string(f" layers {ints_text(ints(self.layers))}")
        printer.print_string(" sources ")
        printer.print_attribute(self.sources)
        print_attributes(printer, self, ("sym_name", "type", "layers", "sources"))

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        attributes: dict[str, Attribute] = {"sym_name": parser.parse_symbol_name()}
        parser.parse_punctuation(":")
        attributes["type"] = parser.parse_type()
        layers = parse_ints(parser) if parser.parse_optional_keyword("layers") is not None else None
        parser.parse_keyword("sources")
        attributes["sources"] = parser.parse_attribute()
        if layers is not None:
            attributes["layers"] = int_array(layers)
        return cls.build(attributes={**attributes, **parser.parse_optional_attr_dict()})

    def verify_(self) -> None:
        expected = 1 if self.layer_list is None else len(self.layer_list)
        if len(self.sources) != expected:
            raise VerifyException(
                f"weight @{self.sym_name.data} has {len(self.sources)} sources, expected {expected}"
            )


@irdl_op_definition
class CacheDeclOp(TextualOp):
    """Declares the key/value cache of the listed layers: per layer and slot [heads, ctx, size] each."""

    name = "graph.cache_decl"
    sym_name = attr_def(SymbolNameConstraint())
    layers = attr_def(DenseArrayBase)
    heads = attr_def(IntegerAttr)
    key_size = attr_def(IntegerAttr)
    value_size = attr_def(IntegerAttr)
    type = attr_def(AnyFloat)
    traits = traits_def(SymbolOpInterface())
    SYNTAX: ClassVar[Syntax] = syntax(
        {"sym_name": SYMBOL_NAME}, layers=INTS, heads=INT, key_size=INT, value_size=INT, type=TYPE
    )

    def __init__(
        self, name: str, layers: Sequence[int], heads: int, key_size: int, value_size: int, type: Attribute
    ) -> None:
        super().__init__(
            attributes={
                "sym_name": StringAttr(name),
                "layers": int_array(layers),
                "heads": IntegerAttr(heads, 64),
                "key_size": IntegerAttr(key_size, 64),
                "value_size": IntegerAttr(value_size, 64),
                "type": type,
            }
        )

    def verify_(self) -> None:
        for what in ("heads", "key_size", "value_size"):
            size = index_of(getattr(self, what))
            if size < 1:
                raise VerifyException(f"cache @{self.sym_name.data}: {what} is {size}, expected at least 1")


def stored_element(element: Attribute) -> Attribute:
    """The type of an element as it is stored: of a quantized type its storage, else itself."""
    from npuc.ir.nquant import QuantizedType  # the dialect is built on this one's types

    return element.scheme.storage if isinstance(element, QuantizedType) else element


class _NamesWeight(SymbolUserOpInterface):
    """The weight exists and has the type that the operation reads, which may be that of its stored values."""

    def verify(self, op: Operation) -> None:
        assert isinstance(op, ParamOp)
        found = require_symbol(op, op.symbol, "weight", (WeightOp.name, "tile.packed"))
        if isinstance(found, WeightOp):
            what = f"value of weight @{op.symbol.string_value()}"
            check_shape(what, op.result, found.type.get_shape())
            if element_of(op.result) != stored_element(found.type.element_type):
                check_element(what, op.result, found.type.element_type)


@irdl_op_definition
class ParamOp(GraphOp):
    """The value of a weight; of a per-layer weight, the current layer's."""

    name = "graph.param"
    symbol = attr_def(FlatSymbolRefAttrConstr)
    result = result_def(TensorType)
    traits = traits_def(_NamesWeight())
    SYNTAX: ClassVar[Syntax] = syntax({"symbol": SYMBOL})

    def __init__(self, symbol: str, type: TensorType[Attribute]) -> None:
        super().__init__(attributes={"symbol": SymbolRefAttr(symbol)}, result_types=[type])


class _NamesCache(SymbolUserOpInterface):
    """The cache exists and has the heads and sizes that are read back."""

    def verify(self, op: Operation) -> None:
        assert isinstance(op, KvUpdateOp)
        found = require_symbol(op, op.cache, "cache", (CacheDeclOp.name, "tile.cache_decl"))
        if not isinstance(found, CacheDeclOp):
            return
        for what, value, size in (
            ("keys", op.keys, found.key_size),
            ("values", op.values, found.value_size),
        ):
            check_rank(what, value, 4)
            batch, _, ctx, _ = shape_of(value)
            check_shape(what, value, (batch, index_of(found.heads), ctx, index_of(size)))


@irdl_op_definition
class KvUpdateOp(TextualOp):
    """Writes k, v [B,Hkv,N,size] at each row's position of the current layer's cache, reads ctx back.

    Keys and values may come flat, as [B,N,Hkv·size]. Rows past a row's valid length are not written.
    """

    name = "graph.kv_update"
    key = operand_def(TensorType)
    value = operand_def(TensorType)
    cache = attr_def(FlatSymbolRefAttrConstr)
    keys = result_def(TensorType)
    values = result_def(TensorType)
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect(), _NamesCache())
    SYNTAX: ClassVar[Syntax] = syntax({"cache": SYMBOL})

    def __init__(
        self, key: SSAValue, value: SSAValue, cache: str, types: Sequence[Attribute] | None = None
    ) -> None:
        if types is None:
            shapes = [(shape_of(operand), element_of(operand)) for operand in (key, value)]
            types = [tensor_type((b, heads, CTX, size), kind) for (b, heads, _, size), kind in shapes]
        attributes: dict[str, Attribute] = {"cache": SymbolRefAttr(cache)}
        super().__init__(operands=[key, value], attributes=attributes, result_types=types)

    def verify_(self) -> None:
        check_rank("keys", self.keys, 4)
        check_rank("values", self.values, 4)
        ctx = shape_of(self.keys)[2]
        for what, operand, result in (("key", self.key, self.keys), ("value", self.value, self.values)):
            batch, heads, _, size = shape_of(result)
            check_shape(f"{what}s", result, (batch, heads, ctx, size))
            check_element(f"{what}s", result, element_of(operand))
            if len(shape_of(operand)) == 3 and isinstance(heads, int):
                check_shape(what, operand, (batch, shape_of(operand)[1], size * heads))
            else:
                check_rank(what, operand, 4)
                check_shape(what, operand, (batch, heads, shape_of(operand)[2], size))


class _CallsLayer(SymbolUserOpInterface):
    """The layer body takes and gives the right types, and its weights and caches have the layers."""

    def verify(self, op: Operation) -> None:
        assert isinstance(op, LayersOp)
        carried = [value.type for value in op.carried]
        function = require_function(op, op.callee, op.operand_types)
        name, outputs = op.callee.string_value(), function.function_type.outputs.data
        if len(outputs) != len(carried):
            raise VerifyException(f"@{name} gives {len(outputs)} results, {len(carried)} are carried")
        for number, (got, wanted) in enumerate(zip(outputs, carried, strict=True)):
            if got != wanted:
                raise VerifyException(f"result {number} of @{name} is {got}, the carried value {wanted}")
        for inner in function.body.walk():
            if isinstance(inner, ParamOp):
                self._check_layers(inner, inner.symbol, op.layer_list)
            elif isinstance(inner, KvUpdateOp):
                self._check_layers(inner, inner.cache, op.layer_list)

    @staticmethod
    def _check_layers(user: Operation, reference: SymbolRefAttr, layers: Sequence[int]) -> None:
        kinds = (WeightOp.name, "tile.packed", CacheDeclOp.name, "tile.cache_decl")
        found = require_symbol(user, reference, "symbol", kinds)
        require_layers(f"@{reference.string_value()}", found.attributes.get("layers"), layers)


@irdl_op_definition
class LayersOp(TextualOp):
    """Runs the body ``callee`` once per listed layer, replacing the carried operands by its results."""

    name = "graph.layers"
    carried = var_operand_def()
    extras = var_operand_def()
    callee = attr_def(FlatSymbolRefAttrConstr)
    layers = attr_def(DenseArrayBase)
    outputs = var_result_def()
    irdl_options = (AttrSizedOperandSegments(),)
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect(), _CallsLayer())

    def __init__(
        self, callee: str, layers: Sequence[int], carried: Sequence[SSAValue], extras: Sequence[SSAValue]
    ) -> None:
        super().__init__(
            operands=[carried, extras],
            attributes={"callee": SymbolRefAttr(callee), "layers": int_array(layers)},
            result_types=[[v.type for v in carried]],
        )

    @property
    def layer_list(self) -> tuple[int, ...]:
        """Indices of the model's layers, in order."""
        return ints(self.layers)

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_symbol_name(self.callee.string_value())
        printer.print_string(f" {ints_text(self.layer_list)}")
        for word, values in (("", self.carried), (" extras", self.extras)):
            if values:
                printer.print_string(f"{word} ")
                print_values(printer, values)
        self.print_result_types(printer)
        print_attributes(printer, self, ("callee", "layers"))

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        callee = SymbolRefAttr(parser.parse_symbol_name())
        layers = int_array(parse_ints(parser))
        extras: list[SSAValue] = []
        carried: list[SSAValue] = []
        if parser.parse_optional_keyword("extras") is None:
            carried = parse_values(parser)
            if parser.parse_optional_keyword("extras") is not None:
                extras = parse_values(parser)
        else:
            extras = parse_values(parser)
        types = cls.parse_result_types(parser, len(carried))
        attributes = {"callee": callee, "layers": layers, **parser.parse_optional_attr_dict()}
        return cls.build(operands=[carried, extras], attributes=attributes, result_types=[types])

    def verify_(self) -> None:
        if not self.layer_list:
            raise VerifyException("no layers to run")
        if len(self.outputs) != len(self.carried):
            raise VerifyException(f"{len(self.carried)} values are carried, {len(self.outputs)} given")
        for number, (value, output) in enumerate(zip(self.carried, self.outputs, strict=True)):
            if value.type != output.type:
                raise VerifyException(f"output {number} is {output.type}, the carried value {value.type}")
