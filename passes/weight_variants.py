"""Weights of which a pass wants other arrangements: new symbols with longer recipes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from npuc.ir import graph
from npuc.ir.graph_types import int_array
from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr, ModuleOp, StringAttr, SymbolRefAttr, TensorType
from xdsl.ir import Attribute
from xdsl.rewriter import Rewriter

Wrap = Callable[[DictionaryAttr], DictionaryAttr]


def step(op: str, source: DictionaryAttr, **values: int | Sequence[int]) -> DictionaryAttr:
    """A recipe that does something to another."""
    entries: dict[str, Attribute] = {"op": StringAttr(op)}
    for key, value in values.items():
        entries[key] = IntegerAttr(value, 64) if isinstance(value, int) else int_array(value)
    return DictionaryAttr({**entries, "source": source})


@dataclass
class WeightVariants:
    """The weights of a module, and variants of them that were asked for."""

    module: ModuleOp
    made: dict[tuple[str, str], graph.WeightOp] = field(default_factory=dict[tuple[str, str], graph.WeightOp])

    def change(self, param: graph.ParamOp, wraps: Mapping[str, Wrap], shape: Sequence[int]) -> None:
        """Lets a `graph.param` read its weight through further recipe steps.

        Args:
            wraps: by texts that tell them apart.
            shape: of the result.
        """
        name = param.symbol.string_value()
        key = name, "; ".join(wraps)
        if key not in self.made:
            self.made[key] = self._variant(name, list(wraps.values()), shape)
        param.attributes["symbol"] = SymbolRefAttr(self.made[key].sym_name.data)
        kind = TensorType(graph.element_of(param.result), shape)  # which may be that of stored values
        Rewriter.replace_value_with_new_type(param.result, kind)

    def finish(self) -> None:
        """Drops weights that nothing reads any more; an only variant of one gets its name."""
        params = [op for op in self.module.walk() if isinstance(op, graph.ParamOp)]
        read = {op.symbol.string_value() for op in params}
        renamed: dict[str, str] = {}
        for name, weight in {op.sym_name.data: op for op in self._weights()}.items():
            if name not in read:
                own = [op for (origin, _), op in self.made.items() if origin == name]
                if len(own) == 1:
                    renamed[own[0].sym_name.data] = name
                    own[0].attributes["sym_name"] = weight.sym_name
                weight.detach()
                weight.erase()
        for op in params:
            name = op.symbol.string_value()
            op.attributes["symbol"] = SymbolRefAttr(renamed.get(name, name))

    def _weights(self) -> list[graph.WeightOp]:
        return [op for op in self.module.body.block.ops if isinstance(op, graph.WeightOp)]

    def _variant(self, name: str, wraps: Sequence[Wrap], shape: Sequence[int]) -> graph.WeightOp:
        names = {weight.sym_name.data: weight for weight in self._weights()}
        original = names[name]
        number = next(n for n in range(1, len(names) + 2) if f"{name}~{n}" not in names)
        sources = list(original.sources)
        for wrap in wraps:
            sources = [wrap(source) for source in sources]
        kind = TensorType(original.type.element_type, shape)
        variant = graph.WeightOp(f"{name}~{number}", kind, sources, original.layer_list)
        variant.location = original.location
        self.module.body.block.insert_ops_after([variant], original)
        return variant
