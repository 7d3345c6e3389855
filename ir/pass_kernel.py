"""A pass, prepared: see ir/commands.py for its meaning.

`PassKernel` turns a specification into a list of stages. Binding it to tensors lets each stage add the calls
that it takes (ir/pass_binding.py). Values have one axis per axis of the pass (the slices, then the nest
dimensions longer than 1), in the order the contraction wants, with size 1 where nothing varies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from npuc.ir.chain import BINARY, REDUCTIONS, SELECT, SOURCES, UNARY
from npuc.ir.clipped_product import Prefix, bind_clipped, prefix_of
from npuc.ir.command_spec import MAX_NEST, MAX_STEPS, At, Bound, PassSpec, Port, Step, bad_command
from npuc.ir.contraction import Contraction, plan_contraction
from npuc.ir.pass_binding import F32, Binding, BoundPass, Scratch, shares
from npuc.ir.pass_stages import (
    RING,
    ZERO,
    Reach,
    Source,
    Stage,
    bounded,
    clearing,
    joined,
    joined_sums,
    masked_move,
    move,
    step_call,
    to_integers,
)
from npuc.ir.strided import StridedView, overlap


class PassKernel:
    """A pass without addresses; ``bind`` gives a function to run."""

    def __init__(self, spec: PassSpec) -> None:
        _check(spec)
        self.spec = spec
        self.nest = [-1, *(i for i, n in enumerate(spec.size) if n > 1)]  # of each axis; -1: slices
        self.sizes = [spec.slices, *(n for n in spec.size if n > 1)]
        self.reduced = [d in spec.reduce for d in self.nest]
        strides = {name: self._axis_strides(name, port) for name, port in spec.ports().items()}
        self.steps = joined_sums([step for step in spec.chain if step.op != "none"])
        self.plan = self._plan_contraction(strides) if spec.stationary is not None else None
        order = self.plan.order if self.plan else tuple(range(len(self.sizes)))
        self.order = order
        ordered_sizes = [self.sizes[a] for a in order]
        self.views = {
            name: StridedView.of(ordered_sizes, [axis_strides[a] for a in order])
            for name, axis_strides in strides.items()
        }
        self.shape: tuple[int, ...] = (1,) * len(order)  # static shape of the running value
        self.fresh = False  # whether the running value may be overwritten
        self.summed = False  # whether the reduced axes are gone
        self.stash: tuple[int, ...] | None = None
        self.stages: list[Stage] = self._make()

    def bind(self, operands: Mapping[str, At], scratch: Scratch | None = None) -> BoundPass:
        """Tie the pass to tensors: one operand per port in use, flat and of the port's type.

        Args:
            scratch: that of passes which do not run at the same time.
        """
        views = {name: view.at(*operands[name]) for name, view in self.views.items()}
        for name, port in self.spec.ports().items():
            if views[name].dtype != port.dtype:
                raise bad_command(f"{name} is declared as {port.dtype} and given as {views[name].dtype}")
        flips = {name: view.flips for name, view in self.views.items()}
        binding = Binding(views, flips, scratch or Scratch())
        for stage in self.stages:
            stage(binding)
        return BoundPass(binding.calls, binding.limits)

    @property
    def varies_along_slices(self) -> bool:
        """Whether the result may differ between slices; else ``out`` may have the slice stride 0."""
        return self.shape[self.order.index(0)] > 1

    # Preparation

    def _axis_strides(self, name: str, port: Port) -> list[int]:
        """Strides per axis; a ring's stream is the same for all slices and walks over them in its nest."""
        if len(port.strides) != len(self.spec.size) + 1:
            raise bad_command(
                f"{name} has {len(port.strides) - 1} strides, the nest {len(self.spec.size)} extents"
            )
        strides = [port.strides[1 + d] for d in self.nest]
        if name == "stream" and self.spec.ring_dim is not None:
            strides[0] = 0
            if self.spec.ring_dim in self.nest:
                strides[self.nest.index(self.spec.ring_dim)] += port.strides[0]
        return [s if n > 1 else 0 for s, n in zip(strides, self.sizes, strict=True)]

    def _plan_contraction(self, strides: Mapping[str, Sequence[int]]) -> Contraction:
        stream, stationary = list(strides["stream"]), list(strides["stationary"])
        masks = (stream, self.spec.mask, self.spec.ring_dim), (stationary, self.spec.within, None)
        for masked, bound, ring in masks:  # masking makes an operand vary along the masked axes
            for axis in self._bound_axes(bound, ring) if bound is not None else ():
                masked[axis] = masked[axis] or 1
        assert self.spec.stationary is not None
        gathers = self.spec.stationary.dtype != F32 or any(s < 0 for s in stationary)
        summed = list(self.reduced)
        if self.steps and self.steps[0] == Step("ring_add"):  # the sum over the slices is part of the product
            summed[0], self.steps = True, self.steps[1:]
        return plan_contraction(self.sizes, summed, stream, stationary, gathers=gathers)

    def _bound_axes(self, bound: Bound, ring: int | None) -> dict[int, int]:
        """Axes longer than 1 that a bound's position varies along → coefficient.

        Args:
            ring: the nest dimension that walks over the slices, if they are not axis 0.
        """
        slice_axis = 0 if ring is None else self.nest.index(ring) if ring in self.nest else None
        axes: dict[int, int] = {}
        if bound.dim in self.nest:
            axes[self.nest.index(bound.dim)] = 1
        if slice_axis is not None and bound.slice_step:
            axes[slice_axis] = axes.get(slice_axis, 0) + bound.slice_step
        return {axis: step for axis, step in axes.items() if self.sizes[axis] > 1 and step}

    def _reach(self, bound: Bound, ring: int | None, limit: str) -> Reach:
        position = torch.zeros((1,) * len(self.order), dtype=torch.int64)
        for axis, step in self._bound_axes(bound, ring).items():
            shape = [1] * len(self.order)
            shape[self.order.index(axis)] = self.sizes[axis]
            position = position + (torch.arange(self.sizes[axis]) * step).view(shape)
        return Reach(position, int(position.max()) + 1, tuple(position.shape), limit)

    def _make(self) -> list[Stage]:
        if self.moves_bits:
            self.shape = self.views["stream"].shape
            self._check_out()
            return [move]
        if self.spec.mask is not None and self._keeps_type:
            return [self._masked_move(self.spec.mask)]
        stages = [self._fetch()] if self.plan is None else [self._contract(self.plan)]
        stages += [self._step(step) for step in self.steps[:-1]]
        stages += self._last(self.steps[-1]) if self.steps else [self._store]
        left = [n for n, gone in zip(self.sizes, self.reduced, strict=True) if gone]
        if left and not self.summed:
            raise bad_command("dimensions are reduced, but there is neither a contraction nor a reduce step")
        self._check_out()
        return stages

    @property
    def moves_bits(self) -> bool:
        """Whether it only moves elements, bit for bit."""
        return self._keeps_type and self.spec.mask is None

    @property
    def masks_bits(self) -> bool:
        """Whether it only moves elements, those outside of its mask becoming 0."""
        return self._keeps_type and self.spec.mask is not None

    @property
    def _keeps_type(self) -> bool:
        """Whether it stores what it fetches, masked or not."""
        spec = self.spec
        idle = spec.stationary is None and not self.steps and not any(self.reduced)
        return idle and spec.stream is not None and spec.stream.dtype == spec.out.dtype

    # Stages

    def _fetch(self) -> Stage:
        """Steps 1 and 2: the stream, or the fill value where there is none."""
        if self.spec.stream is None:
            filled = torch.full(self.shape, self.spec.fill)
            return lambda b: setattr(b, "value", filled)
        self.shape = self.views["stream"].shape
        self.fresh = self._converts("stream")
        reach = None
        if self.spec.mask is not None:
            reach = self._reach(self.spec.mask, self.spec.ring_dim, "mask")
            self.shape, self.fresh = joined(self.shape, reach.shape), True
        if any(s.source == "stash" for s in self.spec.chain):
            self.stash, self.fresh = self.shape, False

        def fetch(b: Binding) -> None:
            b.value = b.load("stream")
            if reach is not None:
                b.value = bounded(b, reach, b.value, ZERO)
            b.stash = b.value

        return fetch

    def _contract(self, plan: Contraction) -> Stage:
        """Steps 1 to 3."""
        fetch = self._fetch()
        if self.stash is not None and any(self.reduced):
            raise bad_command("the stash is used behind a contraction that sums")
        self.shape, self.fresh, self.summed = plan.shape, True, True
        prefix = reach = None
        if self.spec.within is not None:
            prefix, reach = self._prefix(plan, self.spec.within), self._reach(self.spec.within, None, "mask")

        def contract(b: Binding) -> None:
            fetch(b)
            x = plan.bind_stream(b, b.value)
            formed = None if b.flips["stationary"] else shares(b.views["stationary"], plan.stored)
            if prefix is not None and formed is not None:
                b.value = bind_clipped(plan, prefix, b, x, plan.matrices(formed))
                return
            w = b.load("stationary")
            again = w is b.views["stationary"] and reach is None
            if reach is not None:
                w = bounded(b, reach, w, ZERO)
            b.value = plan.bind_product(b, x, plan.bind_stationary(b, w), again=again)

        return contract

    def _prefix(self, plan: Contraction, within: Bound) -> Prefix | None:
        """What counts of the stationary operand as a prefix of an axis of the product, if it is one."""
        if not plan.inner or plan.stationary_sums:
            return None
        axes = self._bound_axes(within, None)
        places = {self.order.index(axis): step for axis, step in axes.items()}
        return prefix_of(plan, self.views["stationary"].shape, places)

    def _last(self, step: Step) -> list[Stage]:
        """The last step and the store; in one where the step may write its result to its place."""
        computed = self._step(step)
        out = self.views["out"]
        fits = self.spec.out.dtype == F32 and not out.flips and self.shape == out.shape
        if not fits or step.op not in {*UNARY, *BINARY, SELECT}:
            return [computed, self._store]
        read = None if step.op in UNARY else self._source(step)[0]

        def last(b: Binding) -> None:
            target = b.views["out"]
            others = [b.views[name] for name in ("stream", "operand", "vrf") if name in b.views]
            if any(overlap(other, target) for other in others):
                computed(b)
                self._store(b)
                return
            source = None if read is None else read(b)
            b.calls.append(step_call(step, b.value, source, target))

        return [last]

    def _step(self, step: Step) -> Stage:
        """Step 4: one step of the chain."""
        scope, _, kind = step.op.partition("_")
        if kind in REDUCTIONS and scope == "ring":
            return self._ring(step, kind)
        if kind in REDUCTIONS:
            return self._reduce(kind, rings=step.source == RING)
        read = None
        shape, in_place = self.shape, self.fresh
        if step.op in UNARY:
            if step.source != "none":
                raise bad_command(f"{step.op} takes no source, this step has {step.source}")
        elif step.op in BINARY or step.op == SELECT:
            read, source_shape = self._source(step)
            shape = joined(shape, source_shape)
            in_place = in_place and shape == self.shape
        else:
            raise bad_command(f"unknown step {step.op}")
        self.shape, self.fresh = shape, True

        def apply(b: Binding) -> None:
            source = None if read is None else read(b)
            out = b.value if in_place else b.new(shape)
            b.calls.append(step_call(step, b.value, source, out))
            b.value = out

        return apply

    def _source(self, step: Step) -> tuple[Source, tuple[int, ...]]:
        """A step's source, and its shape."""
        if step.source == "imm":
            value = torch.tensor(step.value, dtype=F32)
            return lambda b: value, (1,) * len(self.order)
        if step.source == "stash" and self.stash is not None:
            self._check_source("the stash", self.stash)
            return lambda b: b.stash, self.stash
        if step.source not in SOURCES or step.source not in self.views:
            raise bad_command(f"{step.op} needs a source, {step.source} is not there")
        name, shape = step.source, self.views[step.source].shape
        self._check_source(name, shape)
        return lambda b: b.load(name), shape

    def _check_source(self, name: str, shape: tuple[int, ...]) -> None:
        if self.summed and any(n > 1 and self.reduced[a] for n, a in zip(shape, self.order, strict=True)):
            raise bad_command(f"{name} varies along a dimension that is already summed")

    def _reduce(self, kind: str, *, rings: bool) -> Stage:
        if self.summed:
            raise bad_command("a reduce step behind a contraction or another reduce step")
        function, identity = REDUCTIONS[kind]
        reduced = [self.reduced[0] or rings, *self.reduced[1:]]
        dims = tuple(i for i, a in enumerate(self.order) if reduced[a])
        full = tuple(self.sizes[self.order[i]] if i in dims else n for i, n in enumerate(self.shape))
        reach = None
        if self.spec.limit is not None:
            reach = self._reach(self.spec.limit, self.spec.ring_dim, "limit")
            full = joined(full, reach.shape)
        outside = torch.tensor(identity)
        shape = self.shape = tuple(1 if i in dims else n for i, n in enumerate(full))
        self.summed = True
        self.fresh = bool(dims) or reach is not None or self.fresh

        def reduce(b: Binding) -> None:
            if reach is not None:
                b.value = bounded(b, reach, b.value, outside)
            if dims:
                value, b.value = b.value.expand(full), b.new(shape)
                b.calls.append(function(value, dims, b.value))

        return reduce

    def _ring(self, step: Step, kind: str) -> Stage:
        if step.source == "imm":
            return self._ring_of_groups(kind, int(step.value))
        function, _ = REDUCTIONS[kind]
        axis = self.order.index(0)
        full = (*self.shape[:axis], self.spec.slices, *self.shape[axis + 1 :])
        shape = (*self.shape[:axis], 1, *self.shape[axis + 1 :])
        self.shape, self.fresh = shape, True

        def ring(b: Binding) -> None:
            value, b.value = b.value.expand(full), b.new(shape)
            b.calls.append(function(value, (axis,), b.value))

        return ring

    def _ring_of_groups(self, kind: str, size: int) -> Stage:
        """Groups of so many neighbouring slices, each by itself."""
        slices = self.spec.slices
        if size < 1 or slices % size:
            raise bad_command(f"groups of {size} of {slices} slices")
        function, _ = REDUCTIONS[kind]
        axis = self.order.index(0)
        shape = (*self.shape[:axis], slices, *self.shape[axis + 1 :])
        groups = (*shape[:axis], slices // size, 1, *shape[axis + 1 :])
        self.shape, self.fresh = shape, True

        def ring(b: Binding) -> None:
            value, found, b.value = b.value.expand(shape), b.new(groups), b.new(shape)
            parts, everywhere = (v.unflatten(axis, (-1, size)) for v in (value, b.value))
            b.calls.append(function(parts, (axis + 1,), found))
            b.calls.append(lambda: everywhere.copy_(found.expand(everywhere.shape)))

        return ring

    def _check_out(self) -> None:
        for i, (axis, n) in enumerate(zip(self.order, self.views["out"].shape, strict=True)):
            name = "the slices" if axis == 0 else f"dimension {self.nest[axis]}"
            if self.reduced[axis] and n > 1:
                raise bad_command(f"the result is stored with a stride along {name}, which is reduced")
            if n == 1 and self.shape[i] > 1:
                raise bad_command(f"several elements go to one address: out stride 0 along {name}")

    def _store(self, b: Binding) -> None:
        """Step 5: cast and commit."""
        dtype = self.spec.out.dtype
        if dtype.is_floating_point:
            b.store(b.value)
        else:
            target, flips, value = b.views["out"], b.flips["out"], b.value
            shape = target.shape
            b.calls.append(lambda: target.copy_(to_integers(value, dtype).expand(shape).flip(flips)))

    def _masked_move(self, mask: Bound) -> Stage:
        """The whole pass where it only moves elements and clears those outside the mask."""
        reach = self._reach(mask, self.spec.ring_dim, "mask")
        self.shape = joined(self.views["stream"].shape, reach.shape)
        self._check_out()
        clear = clearing(self._bound_axes(mask, self.spec.ring_dim), self.shape)
        return lambda b: masked_move(b, reach, clear)

    def _converts(self, name: str) -> bool:
        port = self.spec.ports()[name]
        return port.dtype != F32 or bool(self.views[name].flips)


def _check(spec: PassSpec) -> None:
    if not 1 <= len(spec.size) <= MAX_NEST or min(spec.size) < 1:
        raise bad_command(f"a nest has 1 to {MAX_NEST} extents of at least 1, this pass has {spec.size}")
    dims = [*spec.reduce, *(b.dim for b in (spec.mask, spec.limit) if b), spec.ring_dim or 0]
    if any(not 0 <= d < len(spec.size) for d in dims):
        raise bad_command(f"dimensions {sorted(dims)} do not all lie in the nest {spec.size}")
    if spec.ring_dim is not None and spec.size[spec.ring_dim] > spec.slices:
        raise bad_command(f"the ring walks over {spec.size[spec.ring_dim]} slices of {spec.slices}")
    if len(spec.chain) > MAX_STEPS:
        raise bad_command(f"a chain has at most {MAX_STEPS} steps, this one has {len(spec.chain)}")
    if spec.stationary is not None and spec.stream is None:
        raise bad_command("a contraction needs a stream")
    if spec.limit is not None and not any(s.op.startswith("reduce_") for s in spec.chain):
        raise bad_command("a limit needs a reduce step")
