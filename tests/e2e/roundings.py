"""What an artifact rounds inputs to, and a reference that settles ties as the artifact does.

Rounding is not continuous: two right computations round a value near a tie to different sides, 2⁻³ apart.
So what an artifact's commands have rounded is recorded, and transformers takes over each of these values
that is a right rounding of its own, as far as float32 can tell. Then nothing is left to chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from npuc.ir import graph
from npuc.ir.commands import torch_type
from npuc.ir.graph import element_of, static_shape
from npuc.ir.legality import module_path
from npuc.ir.tile import ints
from npuc.ir.tile_placements import SlicedAttr, SpreadAttr
from npuc.passes.evaluation import symbol
from npuc.passes.pipeline import Quantize, lower
from npuc.passes.placing import placement_of
from npuc.runtime.artifact import Artifact
from npuc.runtime.comparison import Comparison
from npuc.runtime.device import Row, SimulatorDevice, run_rows
from npuc.runtime.manifest import Program
from npuc.runtime.quantized_reference import load_dequantized, nearest
from npuc.runtime.simulator.plan import PassPlan
from npuc.runtime.simulator.program import Item, LoadedProgram
from npuc.runtime.simulator.simulator import RunResult
from npuc.tools.report.recompile import buckets_of, start_of, target_of
from torch import Tensor
from xdsl.dialects.builtin import Float8E4M3FNType, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, SSAValue

FLOAT8 = torch.float8_e4m3fn
TOLERANCE = 2**-22  # of a row's largest input: two units in the last place of a float32


class Rounded(NamedTuple):
    """A tensor of rounded inputs: the layers that read it, where it lies, and how many rows and columns."""

    layers: tuple[str, ...]
    placement: Attribute | None
    shape: tuple[int, int]

    def logical(self, stored: Tensor) -> Tensor:
        """[rows, columns] of what the slices hold, [slices, …]."""
        rows, columns = self.shape
        if isinstance(self.placement, SpreadAttr):
            return stored.reshape(len(stored), -1, columns).transpose(0, 1).reshape(-1, columns)[:rows]
        assert isinstance(self.placement, SlicedAttr)
        return stored.reshape(len(stored), rows, -1).transpose(0, 1).reshape(rows, -1)[:, :columns]


def rounded_tensors(artifact: Artifact) -> dict[str, list[Rounded]]:
    """Of each program the tensors of rounded inputs, in order, from the IR that the artifact keeps."""
    module, quantize = start_of(artifact), Quantize.of_recipe(artifact.manifest.recipe)
    lower(module, target_of(artifact), buckets_of(artifact), quantize=quantize, until="layout")
    return {symbol(op): list(_of_program(op)) for op in module.ops if isinstance(op, ModuleOp)}


def _of_program(program: ModuleOp) -> Iterator[Rounded]:
    functions = {op.sym_name.data: op for op in program.ops if isinstance(op, FuncOp)}
    for op in functions["body"].walk():
        if isinstance(op, graph.LayersOp):
            for layer in ints(op.layers):
                for cast in functions[op.callee.string_value()].walk():
                    if isinstance(cast, graph.CastOp) and element_of(cast.result) == Float8E4M3FNType():
                        *_, rows, columns = static_shape(cast.result)
                        paths = tuple(path.replace("{}", str(layer)) for path in _readers(cast.result))
                        yield Rounded(paths, placement_of(cast.result), (rows, columns))


def _readers(value: SSAValue) -> Iterator[str]:
    """The linear layers that a value goes to."""
    for use in value.uses:
        if isinstance(use.operation, graph.LinearOp):
            yield module_path(use.operation)
        else:
            for result in use.operation.results:
                yield from _readers(result)


class RecordingDevice(SimulatorDevice):
    """Keeps what the inputs of layers are rounded to, by layer and, in order, position; of one row a run."""

    def __init__(self, artifact: Artifact) -> None:
        super().__init__(artifact)
        self.tensors = rounded_tensors(artifact)
        self.stored: list[Tensor] = []
        self.rows: dict[str, list[Tensor]] = {}
        self.simulator.run_ranks = self._run

    def document(self, tokens: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits [positions, V] of a document, and what each layer's inputs were rounded to."""
        self.rows = {}
        prefill, decode = (next(p for p in self.programs if p.kind == kind) for kind in ("prefill", "decode"))
        begin = tokens[: prefill.new_tokens]
        logits = [run_rows(self, prefill, [Row(0, 0, begin)], "all")[0, : len(begin)]]
        for position in range(len(begin), len(tokens)):
            logits.append(run_rows(self, decode, [Row(0, position, [tokens[position]])]))
        return torch.cat(logits), {path: torch.cat(rows) for path, rows in self.rows.items()}

    def forward(
        self,
        program: Program,
        tokens: Tensor,
        slots: Sequence[int],
        positions: Sequence[int],
        valid: Sequence[int],
        entry: str = "last",
    ) -> Tensor:
        self.stored = []
        logits = super().forward(program, tokens, slots, positions, valid, entry)
        (count,) = valid
        for tensor, stored in zip(self.tensors[program.name], self.stored, strict=True):
            for path in tensor.layers:
                self.rows.setdefault(path, []).append(tensor.logical(stored)[:count])
        return logits

    def _run(self, program: LoadedProgram, entry: str, params: Sequence[int], **_: Any) -> RunResult:
        """Command by command."""
        prepared = self.simulator.cores[0].prepare(program)
        for position in prepared.sequencer.trace(entry, params):
            prepared.execute(position)
            item = program.items[position]
            if isinstance(item.plan, PassPlan) and _rounds(item):
                self.stored.append(self._written(item.plan, prepared.sequencer.registers))
        return RunResult(len(program.items))

    def _written(self, plan: PassPlan, registers: Sequence[int]) -> Tensor:
        port = plan.ports["out"]
        memory = self.simulator.cores[0].memories[port.memory.name]
        start = port.locate(memory, port.base.imm + registers[port.base.reg])
        return memory.flat(FLOAT8).as_strided(port.sizes, port.storage_strides(), start).float()


def _rounds(item: Item) -> bool:
    """Whether a pass divides by a scale and stores in 8 bits."""
    fields = item.instruction.fields
    stored = str(fields.get("out.type", "none"))
    return stored != "none" and torch_type(stored) == FLOAT8 and "div" in str(fields.get("chain.op"))


@dataclass
class Settling:
    """A rounding of inputs that follows an artifact's where both are right.

    Attributes:
        taken: by layer, what the artifact rounded its inputs to [positions, inputs].
        roundings: how many there were.
        open: those so near a tie that float32 cannot tell.
        different: those where the artifact and the nearest value differ.
        wrong: those that are no right rounding; they are not followed.
    """

    taken: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    roundings: int = 0
    open: int = 0
    different: int = 0
    wrong: int = 0

    def __call__(self, path: str, x: Tensor) -> Tensor:
        taken, margin = self.taken[path][None].to(x.dtype), TOLERANCE * x.abs().amax(-1, keepdim=True)
        least, most = nearest(path, x - margin), nearest(path, x + margin)
        settled = taken.clamp(least, most)
        self.roundings += x.numel()
        self.open += int((least != most).sum())
        self.different += int((taken != nearest(path, x)).sum())
        self.wrong += int((settled != taken).sum())
        return settled


@torch.no_grad()
def compare_settled(
    artifact: Path, checkpoint: Path, documents: Sequence[Sequence[int]]
) -> tuple[Comparison, Settling]:
    """An artifact's logits beside transformers', which rounds as the artifact does where that is right."""
    device, settling, found = RecordingDevice(Artifact(artifact)), Settling(), Comparison()
    model = load_dequantized(checkpoint, stored_products=True, rounding=settling)
    for tokens in documents:
        logits, settling.taken = device.document(tokens)
        found.add(logits, model(torch.tensor([list(tokens)]), use_cache=False).logits[0])
    return found, settling
