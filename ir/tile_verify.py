"""What makes a `tile.pass` or `tile.copy` well formed, whatever the machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import prod

from npuc.ir.tile_spec import (
    BINARY_STEPS,
    COPY_PORTS,
    MAX_CHAIN,
    MAX_NEST,
    PASS_PORTS,
    REDUCE_STEPS,
    RING_STEPS,
    SOURCES,
    UNARY_STEPS,
    CopySpec,
    Limit,
    PassSpec,
    Port,
    Step,
)
from xdsl.dialects.builtin import DictionaryAttr, MemRefType, i32
from xdsl.ir import SSAValue
from xdsl.utils.exceptions import VerifyException


def verify_pass(
    spec: PassSpec, ports: DictionaryAttr, buffers: Sequence[SSAValue], indices: Sequence[SSAValue]
) -> None:
    """Checks a pass against the command model.

    Raises:
        VerifyException: saying what does not fit.
    """
    _verify_size(spec.size)
    _verify_port_names(ports, PASS_PORTS, ("out",))
    if ("stream" in spec.ports) == (spec.fill is not None):
        raise VerifyException("a pass has either a stream port or a fill value")
    for name, port in spec.ports.items():
        _verify_port(name, port, spec.size, buffers, len(indices))
    _verify_used(spec.ports, buffers)
    _verify_dims(spec)
    for name, limit in (("mask", spec.mask), ("limit", spec.limit)):
        if limit is not None:
            _verify_limit(name, limit, len(spec.size), len(indices))
    _verify_chain(spec)


def verify_copy(
    spec: CopySpec, ports: DictionaryAttr, buffers: Sequence[SSAValue], indices: Sequence[SSAValue]
) -> None:
    """Checks a copy against the command model.

    Raises:
        VerifyException: saying what does not fit.
    """
    _verify_size(spec.size)
    _verify_port_names(ports, COPY_PORTS, ("src", "dst"))
    if ("index" in spec.ports) != (spec.index_dim >= 0):
        raise VerifyException("a gather has both an index port and a dimension that it walks along")
    if spec.index_dim >= len(spec.size):
        raise VerifyException(f"the index walks along dimension {spec.index_dim} of {len(spec.size)}")
    for name, port in spec.ports.items():
        size = spec.size if name != "index" else (spec.size[spec.index_dim],)
        gathered = name == "src" and spec.index_dim >= 0
        _verify_port(name, port, size, buffers, len(indices), reach=not gathered and spec.limit is None)
    _verify_used(spec.ports, buffers)
    if spec.limit is not None:
        _verify_limit("limit", spec.limit, len(spec.size), len(indices))
        if spec.limit.dim != 0 or spec.limit.slice_stride != 0:
            raise VerifyException(f"a copy's limit clips dimension 0, not dimension {spec.limit.dim}")
    elements = {name: _buffer(buffers[port.buffer]).element_type for name, port in spec.ports.items()}
    if elements["src"] != elements["dst"]:
        raise VerifyException(f"element types differ: src has {elements['src']}, dst has {elements['dst']}")
    if elements.get("index", i32) != i32:
        raise VerifyException(f"index has element type {elements['index']}, expected i32")


def _buffer(value: SSAValue) -> MemRefType:
    assert isinstance(value.type, MemRefType)
    return value.type


def _verify_size(size: Sequence[int]) -> None:
    if not 1 <= len(size) <= MAX_NEST:
        raise VerifyException(f"nest has {len(size)} dimensions, expected 1 to {MAX_NEST}")
    if min(size) < 1:
        raise VerifyException(f"nest has size {list(size)}, expected extents of at least 1")


def _verify_port_names(ports: DictionaryAttr, known: Collection[str], required: Collection[str]) -> None:
    for name, port in ports.data.items():
        if name not in known:
            raise VerifyException(f"port {name} is unknown, expected one of {', '.join(known)}")
        if not isinstance(port, DictionaryAttr):
            raise VerifyException(f"port {name} is {port}, expected a dictionary")
    for name in required:
        if name not in ports.data:
            raise VerifyException(f"port {name} is missing")


def _verify_port(
    name: str,
    port: Port,
    size: Sequence[int],
    buffers: Sequence[SSAValue],
    indices: int,
    *,
    reach: bool = True,
) -> None:
    if len(port.strides) != len(size):
        raise VerifyException(f"port {name} has {len(port.strides)} strides, the nest {len(size)} dimensions")
    if len(port.slices) not in (0, len(size)):
        raise VerifyException(f"port {name} has {len(port.slices)} slices, the nest {len(size)} dimensions")
    if not 0 <= port.buffer < len(buffers):
        raise VerifyException(f"port {name} uses buffer {port.buffer} of {len(buffers)}")
    for number, _ in port.index:
        if not 0 <= number < indices:
            raise VerifyException(f"port {name} uses index {number} of {indices}")
    if reach and not port.index:
        _verify_reach(name, port, size, _buffer(buffers[port.buffer]))


def _verify_reach(name: str, port: Port, size: Sequence[int], buffer: MemRefType) -> None:
    """The elements that a port walks over lie in its buffer (in one slice of it, where it has slices)."""
    count = prod(buffer.get_shape())
    steps = [stride * (extent - 1) for stride, extent in zip(port.strides, size, strict=True)]
    first = port.offset + sum(min(step, 0) for step in steps)
    last = port.offset + sum(max(step, 0) for step in steps)
    if first < 0 or last >= count:
        outside = first if first < 0 else last
        raise VerifyException(f"port {name} reaches element {outside} of a buffer of {count}")


def _verify_used(ports: Mapping[str, Port], buffers: Sequence[SSAValue]) -> None:
    unused = sorted({*range(len(buffers))} - {port.buffer for port in ports.values()})
    if unused:
        raise VerifyException(f"no port uses buffer {unused[0]}")


def _verify_dims(spec: PassSpec) -> None:
    rank, out = len(spec.size), spec.ports["out"]
    if len({*spec.reduce}) != len(spec.reduce):
        raise VerifyException(f"reduced dimensions {list(spec.reduce)} repeat")
    for dim in spec.reduce:
        if not 0 <= dim < rank:
            raise VerifyException(f"dimension {dim} of {rank} is reduced")
        if out.strides[dim] != 0:
            raise VerifyException(f"port out moves along reduced dimension {dim}")
    if spec.ring_dim >= rank:
        raise VerifyException(f"the ring is dimension {spec.ring_dim} of {rank}")
    for name, port in spec.ports.items():
        for dim, stride in enumerate(port.slices):
            expected = 1 if name == "stream" and dim == spec.ring_dim else 0
            if stride != expected:
                raise VerifyException(
                    f"port {name} moves {stride} slices along dimension {dim}, expected {expected}"
                )
    if spec.ring_dim >= 0 and "stream" not in spec.ports:
        raise VerifyException(f"the ring is dimension {spec.ring_dim}, but there is no stream")


def _verify_limit(name: str, limit: Limit, rank: int, indices: int) -> None:
    if not 0 <= limit.dim < rank:
        raise VerifyException(f"{name} is on dimension {limit.dim} of {rank}")
    if not -1 <= limit.index < indices:
        raise VerifyException(f"{name} uses index {limit.index} of {indices}")
    if limit.index >= 0 and limit.limit != 0:
        raise VerifyException(f"{name} has both the constant {limit.limit} and an index as bound")


def _verify_chain(spec: PassSpec) -> None:
    if len(spec.chain) > MAX_CHAIN:
        raise VerifyException(f"chain has {len(spec.chain)} steps, at most {MAX_CHAIN}")
    for step in spec.chain:
        _verify_step(step, spec)
    ops = [step.op for step in spec.chain]
    sources = {step.source for step in spec.chain}
    for name in ("operand", "vrf"):
        if name in spec.ports and name not in sources:
            raise VerifyException(f"port {name} is used by no step of the chain")
    reduces = [op for op in ops if op in REDUCE_STEPS]
    if reduces and "stationary" in spec.ports:
        raise VerifyException(f"{reduces[0]} in a pass that contracts: the contraction sums already")
    if spec.reduce and not reduces and "stationary" not in spec.ports:
        raise VerifyException(f"dimensions {list(spec.reduce)} are reduced by no step")
    if spec.limit is not None and not reduces:
        raise VerifyException("limit bounds a reduction, and the chain has none")


def _verify_step(step: Step, spec: PassSpec) -> None:
    if step.op not in (*UNARY_STEPS, *BINARY_STEPS, *REDUCE_STEPS, *RING_STEPS):
        raise VerifyException(f"step {step.op} is unknown")
    if step.source not in SOURCES:
        raise VerifyException(
            f"step {step.op} has source {step.source}, expected one of {', '.join(SOURCES)}"
        )
    if step.op in RING_STEPS:
        if step.source not in ("none", "imm") or (step.source == "imm" and step.value not in range(1, 2**16)):
            raise VerifyException(
                f"step {step.op} has source {step.source} {step.value:g}, expected a number of slices or none"
            )
    elif (step.source != "none") != (step.op in BINARY_STEPS):
        wanted = "one" if step.op in BINARY_STEPS else "none"
        raise VerifyException(f"step {step.op} has source {step.source}, expected {wanted}")
    needed = {"operand": "operand", "vrf": "vrf", "stash": "stream"}.get(step.source)
    if needed is not None and needed not in spec.ports:
        raise VerifyException(f"step {step.op} reads {step.source}, and there is no port {needed}")
