"""A copy, prepared: see ir/commands.py for its meaning."""

from __future__ import annotations

from collections.abc import Callable

from npuc.ir.command_spec import BIT_TYPES, MAX_NEST, At, CopySpec, bad_command
from npuc.ir.errors import UserError
from npuc.ir.strided import StridedView, overlap
from torch import Tensor

RunCopy = Callable[..., None]
"""Called with ``limit``: clips the extent of nest dimension 0 (0 or less moves nothing), None moves all."""


class CopyKernel:
    """A copy without addresses; ``bind`` gives a function to run."""

    def __init__(self, spec: CopySpec) -> None:
        if not 1 <= len(spec.size) <= MAX_NEST or min(spec.size) < 1:
            raise bad_command(f"a nest has 1 to {MAX_NEST} extents of at least 1, this copy has {spec.size}")
        if spec.index_dim is not None and not 0 <= spec.index_dim < len(spec.size):
            raise bad_command(f"index dimension {spec.index_dim} lies outside the nest {spec.size}")
        if spec.index_dim is not None and spec.index_scale <= 0:
            raise bad_command(f"an index needs a scale above 0, this copy has {spec.index_scale}")
        repeated = [i for i, n in enumerate(spec.size) if n > 1 and spec.dst[i] == 0]
        if repeated:
            raise bad_command(f"several elements go to one address: dst stride 0 in dimension {repeated[0]}")
        self.spec = spec
        self._type = BIT_TYPES[spec.item]
        reads = tuple(0 if i == spec.index_dim else s for i, s in enumerate(spec.src))
        self._src = StridedView.of(spec.size, reads)
        self._dst = StridedView.of(spec.size, spec.dst)

    def bind(self, src: At, dst: At, index: Tensor | None = None) -> RunCopy:
        """Tie the copy to tensors.

        Args:
            src: source; flat tensors may have any type of the element's width.
            dst: destination.
            index: i32 [size[index_dim]], read at every run.
        """
        target = self._dst.at(dst.flat.view(self._type), dst.offset)
        if self.spec.index_dim is not None:
            return self._in_nest_order(self._gathered(src, index), target)
        source = self._src.at(src.flat.view(self._type), src.offset)
        size, reads = self.spec.size, self._src.flips
        if reads or self._dst.flips:
            return self._in_nest_order(lambda extent: source.flip(reads).expand(size)[:extent], target)
        return _straight(source, target, size[0], clones=overlap(source, target))

    def _gathered(self, src: At, index: Tensor | None) -> Callable[[int], Tensor]:
        """The function of the extent of dimension 0 that takes the source's rows from a list."""
        dim, scale = self.spec.index_dim, self.spec.index_scale
        if index is None or dim is None:
            raise bad_command("a copy with an index dimension needs an index")
        flat, start = src.flat.view(self._type), src.offset + self._src.shift
        reach = sum((n - 1) * s for n, s in zip(self._src.shape, self._src.strides, strict=True))
        rows = max((flat.numel() - 1 - start - reach) // scale + 1, 0)
        shape = tuple(rows if i == dim else n for i, n in enumerate(self._src.shape))
        strides = tuple(scale if i == dim else s for i, s in enumerate(self._src.strides))
        table = flat.as_strided(shape, strides, start)
        size, reads = self.spec.size, self._src.flips

        def read(extent: int) -> Tensor:
            chosen = index[:extent] if dim == 0 else index
            low, high = (int(x) for x in chosen.aminmax())
            if low < 0 or high >= rows:
                wrong = low if low < 0 else high
                raise UserError("out-of-bounds", f"index {wrong} lies outside the {rows} rows of the source")
            values = _flipped(table.index_select(dim, chosen), reads)
            return values.expand(extent, *size[1:]) if dim == 0 else values.expand(size)[:extent]

        return read

    def _in_nest_order(self, read: Callable[[int], Tensor], target: Tensor) -> RunCopy:
        """The copy of what ``read`` gives for an extent of dimension 0; the target may run backwards."""
        size, writes = self.spec.size[0], self._dst.flips

        def run(limit: int | None = None) -> None:
            extent = size if limit is None else min(limit, size)
            if extent > 0:
                part = target[size - extent :] if 0 in writes else target[:extent]
                part.copy_(_flipped(read(extent), writes))

        return run


def _flipped(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return x.flip(axes) if axes else x


def _straight(source: Tensor, target: Tensor, size: int, *, clones: bool) -> RunCopy:
    """The copy where nothing runs backwards; ``clones`` where source and destination overlap."""
    repeats = source.shape[0] == 1

    def run(limit: int | None = None) -> None:
        if limit is None or limit >= size:
            target.copy_(source.clone() if clones else source)
        elif limit > 0:
            part = source if repeats else source[:limit]
            target[:limit].copy_(part.clone() if clones else part)

    return run
