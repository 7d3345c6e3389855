"""A pass, prepared: see ir/commands.py for its meaning.

`PassKernel` turns a specification into a list of makers, one per stage that takes part. Binding it to tensors
lets each maker build its views and return the stage: a function of the running value and the run's state.
Values have one axis per axis of the pass (the slices, then the nest dimensions longer than 1), in the order
the contraction wants, with size 1 where nothing varies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from npuc.ir.chain import BINARY, REDUCTIONS, SELECT, SOURCES, UNARY
from npuc.ir.clipped_product import Product, clipped_product, prefix_of
from npuc.ir.command_spec import BIT_TYPES, MAX_NEST, MAX_STEPS, At, Bound, PassSpec, Port, Step, bad_command
from npuc.ir.contraction import Contraction, plan_contraction
from npuc.ir.pass_stages import (
    F32,
    NOTHING,
    RING,
    ZERO,
    Maker,
    Reach,
    RunPass,
    RunState,
    Stage,
    Views,
    as_view,
    binary,
    bounded,
    clearing,
    expanded,
    joined,
    joined_sums,
    loader,
    move,
    select,
    to_integers,
)
from npuc.ir.strided import StridedView, overlap
from torch import Tensor


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
        self.makers: list[Maker] = self._make()

    def bind(self, operands: Mapping[str, At]) -> RunPass:
        """Tie the pass to tensors: one operand per port in use, flat and of the port's type."""
        views = {name: view.at(*operands[name]) for name, view in self.views.items()}
        for name, port in self.spec.ports().items():
            if views[name].dtype != port.dtype:
                raise bad_command(f"{name} is declared as {port.dtype} and given as {views[name].dtype}")
        stages = [make(views) for make in self.makers]
        state = RunState()

        def run(mask_limit: int = 0, limit: int = 0) -> None:
            state.mask_limit, state.limit = mask_limit, limit
            v = NOTHING
            for stage in stages:
                v = stage(v, state)
            state.stash = None

        return run

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
        stream, stationary = list(strides["stream"]), strides["stationary"]
        if self.spec.mask is not None:  # masking makes the stream vary along the masked axes
            for axis in self._bound_axes(self.spec.mask, self.spec.ring_dim):
                stream[axis] = stream[axis] or 1
        assert self.spec.stationary is not None
        gathers = self.spec.stationary.dtype != F32 or any(s < 0 for s in stationary)
        summed = list(self.reduced)
        if self.steps and self.steps[0].op == "ring_add":  # the sum over the slices is part of the product
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

    def _reach(self, bound: Bound, ring: int | None) -> Reach:
        position = torch.zeros((1,) * len(self.order), dtype=torch.int64)
        for axis, step in self._bound_axes(bound, ring).items():
            shape = [1] * len(self.order)
            shape[self.order.index(axis)] = self.sizes[axis]
            position = position + (torch.arange(self.sizes[axis]) * step).view(shape)
        return Reach(position, int(position.max()) + 1, tuple(position.shape))

    def _make(self) -> list[Maker]:
        if self.moves_bits:
            self.shape = self.views["stream"].shape
            self._check_out()
            return [self._move]
        if self.spec.mask is not None and self._keeps_type:
            return [self._masked_move(self.spec.mask)]
        makers = [self._fetch()] if self.plan is None else [self._contract(self.plan)]
        makers += [self._step(step) for step in self.steps[:-1]]
        makers += self._last(self.steps[-1]) if self.steps else [self._store]
        left = [n for n, gone in zip(self.sizes, self.reduced, strict=True) if gone]
        if left and not self.summed:
            raise bad_command("dimensions are reduced, but there is neither a contraction nor a reduce step")
        self._check_out()
        return makers

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

    def _fetch(self) -> Maker:
        """Steps 1 and 2: the stream, or the fill value where there is none."""
        if self.spec.stream is None:
            filled = torch.full(self.shape, self.spec.fill)
            return lambda views: lambda v, state: filled
        self.shape = self.views["stream"].shape
        self.fresh = self._converts("stream")
        mask = self._mask()
        stashes = any(s.source == "stash" for s in self.spec.chain)
        if stashes:
            self.stash, self.fresh = self.shape, False

        def make(views: Views) -> Stage:
            load = self._loader("stream", views)

            def fetch(v: Tensor, state: RunState) -> Tensor:
                v = load()
                if mask is not None:
                    v = mask(v, state.mask_limit)
                if stashes:
                    state.stash = v
                return v

            return fetch

        return make

    def _mask(self) -> Callable[[Tensor, int], Tensor] | None:
        if self.spec.mask is None:
            return None
        mask, masked_shape = bounded(self._reach(self.spec.mask, self.spec.ring_dim), self.shape, ZERO)
        self.fresh = self.fresh and masked_shape == self.shape  # else the masked value may be an expanded one
        self.shape = masked_shape
        return mask

    def _contract(self, plan: Contraction) -> Maker:
        """Steps 1 to 3. Views that need no conversion are brought into the product's form once."""
        fetch = self._fetch()
        fixed_stream = self.spec.mask is None and self.stash is None and not self._converts("stream")
        if self.stash is not None and any(self.reduced):
            raise bad_command("the stash is used behind a contraction that sums")
        self.shape, self.fresh, self.summed = plan.shape, True, True

        def make(views: Views) -> Stage:
            left = as_view(plan.stream_form, views["stream"]) if fixed_stream else None
            fetch_stage, product = fetch(views), self._product(plan, views)

            def contract(v: Tensor, state: RunState) -> Tensor:
                x = plan.stream_form(fetch_stage(v, state)) if left is None else left
                return product(x, state.mask_limit)

            return contract

        return make

    def _product(self, plan: Contraction, views: Views) -> Product:
        """The product of the stream, formed, with the stationary operand up to the mask's limit."""
        load, view, multiply = self._loader("stationary", views), views["stationary"], plan.product()
        flips, within = self.views["stationary"].flips, self.spec.within
        viewed = not flips and not plan.stationary_sums and (within is not None or view.dtype == F32)
        formed = as_view(plan.stationary_form, view) if viewed else None
        if within is None:
            if formed is None:
                return lambda x, limit: multiply(x, plan.stationary_form(load()))
            product = plan.product_with(formed)
            return lambda x, limit: product(x)
        axes = self._bound_axes(within, None)
        prefix = prefix_of(plan, view.shape, {self.order.index(axis): n for axis, n in axes.items()})
        if prefix is not None and formed is not None and plan.inner:
            return clipped_product(plan, prefix, formed)
        mask, _ = bounded(self._reach(within, None), tuple(view.shape), ZERO)
        return lambda x, limit: multiply(x, plan.stationary_form(mask(load(), limit)))

    def _last(self, step: Step) -> list[Maker]:
        """The last step and the store; in one where the step may write its result to its place."""
        computed = self._step(step)
        out = self.views["out"]
        fits = self.spec.out.dtype == F32 and not out.flips and self.shape == out.shape
        if not fits or step.op not in {*UNARY, *BINARY, SELECT}:
            return [computed, self._store]
        alone, together = UNARY.get(step.op), BINARY.get(step.op)
        read_source = None if alone is not None else self._source(step)[0]
        value = torch.tensor(step.value)

        def make(views: Views) -> Stage:
            target = views["out"]
            others = [views[name] for name in ("stream", "operand", "vrf") if name in views]
            if any(overlap(other, target) for other in others):
                stages = computed(views), self._store(views)
                return lambda v, state: stages[1](stages[0](v, state), state)
            if alone is not None:
                function = alone
                return lambda v, state: function(v, target)
            assert read_source is not None
            read = read_source(views)
            if together is not None:
                pair = together
                return lambda v, state: pair(v, read(state), target)
            return lambda v, state: torch.where(read(state) != 0, v, value, out=target)

        return [make]

    def _step(self, step: Step) -> Maker:
        """Step 4: one step of the chain."""
        scope, _, kind = step.op.partition("_")
        if kind in REDUCTIONS:
            return self._reduce(kind, rings=step.source == RING) if scope == "reduce" else self._ring(kind)
        if step.op in UNARY:
            if step.source != "none":
                raise bad_command(f"{step.op} takes no source, this step has {step.source}")
            function, out = UNARY[step.op], self.fresh
            self.fresh = True
            return lambda views: lambda v, state: function(v, v if out else None)
        source, shape = self._source(step)
        both = joined(self.shape, shape)
        in_place = self.fresh and both == self.shape
        self.shape, self.fresh = both, True
        if step.op == SELECT:
            return select(source, torch.tensor(step.value))
        if step.op not in BINARY:
            raise bad_command(f"unknown step {step.op}")
        return binary(BINARY[step.op], source, in_place=in_place)

    def _source(self, step: Step) -> tuple[Callable[[Views], Callable[[RunState], Tensor]], tuple[int, ...]]:
        """The maker of a step's source, and the source's shape."""
        if step.source == "imm":
            value = torch.tensor(step.value, dtype=F32)
            return lambda views: lambda state: value, (1,) * len(self.order)
        if step.source == "stash" and self.stash is not None:
            self._check_source("the stash", self.stash)
            return lambda views: lambda state: state.stash if state.stash is not None else NOTHING, self.stash
        if step.source not in SOURCES or step.source not in self.views:
            raise bad_command(f"{step.op} needs a source, {step.source} is not there")
        name, shape = step.source, self.views[step.source].shape
        self._check_source(name, shape)

        def make(views: Views) -> Callable[[RunState], Tensor]:
            load = self._loader(name, views)
            return lambda state: load()

        return make, shape

    def _check_source(self, name: str, shape: tuple[int, ...]) -> None:
        if self.summed and any(n > 1 and self.reduced[a] for n, a in zip(shape, self.order, strict=True)):
            raise bad_command(f"{name} varies along a dimension that is already summed")

    def _reduce(self, kind: str, *, rings: bool) -> Maker:
        if self.summed:
            raise bad_command("a reduce step behind a contraction or another reduce step")
        function, identity = REDUCTIONS[kind]
        reduced = [self.reduced[0] or rings, *self.reduced[1:]]
        dims = tuple(i for i, a in enumerate(self.order) if reduced[a])
        full = tuple(self.sizes[self.order[i]] if i in dims else n for i, n in enumerate(self.shape))
        inside = None
        if self.spec.limit is not None:
            inside, full = bounded(
                self._reach(self.spec.limit, self.spec.ring_dim), full, torch.tensor(identity)
            )
        self.shape = tuple(1 if i in dims else n for i, n in enumerate(full))
        self.summed = True
        self.fresh = bool(dims) or (self.fresh and inside is None)

        def reduce(v: Tensor, state: RunState) -> Tensor:
            v = expanded(v, full) if inside is None else inside(v, state.limit)
            return function(v, dims) if dims else v

        return lambda views: reduce

    def _ring(self, kind: str) -> Maker:
        function, _ = REDUCTIONS[kind]
        axis = self.order.index(0)
        full = (*self.shape[:axis], self.spec.slices, *self.shape[axis + 1 :])
        self.shape, self.fresh = (*self.shape[:axis], 1, *self.shape[axis + 1 :]), True
        return lambda views: lambda v, state: function(expanded(v, full), (axis,))

    def _check_out(self) -> None:
        for i, (axis, n) in enumerate(zip(self.order, self.views["out"].shape, strict=True)):
            name = "the slices" if axis == 0 else f"dimension {self.nest[axis]}"
            if self.reduced[axis] and n > 1:
                raise bad_command(f"the result is stored with a stride along {name}, which is reduced")
            if n == 1 and self.shape[i] > 1:
                raise bad_command(f"several elements go to one address: out stride 0 along {name}")

    def _store(self, views: Views) -> Stage:
        """Step 5: cast and commit."""
        target, flips, dtype = views["out"], self.views["out"].flips, self.spec.out.dtype
        stream = views.get("stream")
        aliases = not self.fresh and stream is not None and overlap(stream, target)
        rounds = not dtype.is_floating_point

        def store(v: Tensor, state: RunState) -> Tensor:
            if rounds:
                v = to_integers(v, dtype)
            if flips:
                v = v.expand(target.shape).flip(flips)
            target.copy_(v.clone() if aliases else v)
            return v

        return store

    def _masked_move(self, mask: Bound) -> Maker:
        """The whole pass where it only moves elements and clears those outside the mask."""
        reach, out = self._reach(mask, self.spec.ring_dim), self.views["out"]
        self.shape = joined(self.views["stream"].shape, reach.shape)
        self._check_out()
        clear = clearing(self._bound_axes(mask, self.spec.ring_dim), self.shape)
        reads, writes = self.views["stream"].flips, out.flips

        def make(views: Views) -> Stage:
            bits = BIT_TYPES[views["out"].element_size()]
            source, target = views["stream"].view(bits), views["out"].view(bits)
            clones, nothing = overlap(source, target), torch.zeros((), dtype=bits)

            def masked(v: Tensor, state: RunState) -> Tensor:
                x = source.flip(reads) if reads else source.clone() if clones else source
                if state.mask_limit < reach.top and (writes or clear is None):
                    x = torch.where(reach.position < state.mask_limit, x, nothing)
                target.copy_(x.expand(target.shape).flip(writes) if writes else x)
                if state.mask_limit < reach.top and not writes and clear is not None:
                    clear(target, state.mask_limit)
                return v

            return masked

        return make

    def _converts(self, name: str) -> bool:
        port = self.spec.ports()[name]
        return port.dtype != F32 or bool(self.views[name].flips)

    def _loader(self, name: str, views: Views) -> Callable[[], Tensor]:
        """The function that fetches a port as f32."""
        return loader(views[name], self.views[name].flips)

    def _move(self, views: Views) -> Stage:
        """The whole pass where it only moves elements."""
        return move(views["stream"], views["out"], self.views["stream"].flips, self.views["out"].flips)


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
