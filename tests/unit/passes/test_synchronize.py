"""Waits and signals order all conflicts, leave no token behind, never stop, and are few.

`Checker` below runs a synchronized program with its own rules (docs/design.md, section 7) and its own
notion of what happens before what; it shares nothing with the algorithm.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st
from npuc.passes.algorithms.hazards import Access, Barrier, Command, Credit, Item, Loop
from npuc.passes.algorithms.synchronize import Limits, synchronize

LIMITS = Limits(semaphores=32)


def unrolled(block: list[Item], iterations: dict[Loop, int]) -> Iterator[tuple[Item, dict[Loop, int]]]:
    for item in block:
        if isinstance(item, Loop):
            for i in range(item.count):
                yield from unrolled(item.body, {**iterations, item: i})
        else:
            yield item, iterations


def touched(accesses: tuple[Access, ...], iterations: dict[Loop, int]) -> list[tuple[str, int, int]]:
    result = []
    for a in accesses:
        shift = iterations[a.loop] % a.copies * a.stride if a.loop is not None else 0
        result.append((a.space, a.start + shift, a.stop + shift))
    return result


class Checker:
    """Checks one stretch between barriers at a time."""

    def __init__(self, program: list[Item]) -> None:
        stretch: list[tuple[Item, dict[Loop, int]]] = []
        for item, iterations in unrolled([*program, Barrier()], {}):
            if isinstance(item, Barrier):
                self.check(stretch)
                stretch = []
            else:
                stretch.append((item, iterations))

    def check(self, stretch: list[tuple[Item, dict[Loop, int]]]) -> None:
        self.run([item for item, _ in stretch])
        commands = [(item, iterations) for item, iterations in stretch if isinstance(item, Command)]
        order = self.happens_before(
            [c for c, _ in commands], [i for i, _ in stretch if isinstance(i, Credit)]
        )
        for (i, (a, at)), (j, (b, bt)) in combinations(enumerate(commands), 2):
            if a.queue != b.queue and self.conflict(a, at, b, bt):
                assert order[j].get(a.queue, 0) > self.position[i], f"{a.key} and {b.key} are not ordered"

    @staticmethod
    def conflict(a: Command, at: dict[Loop, int], b: Command, bt: dict[Loop, int]) -> bool:
        pairs = [
            (x, y)
            for left, right in ((a.writes, b.writes), (a.reads, b.writes), (a.writes, b.reads))
            for x in touched(left, at)
            for y in touched(right, bt)
        ]
        return any(x[0] == y[0] and x[1] < y[2] and y[1] < x[2] for x, y in pairs)

    @staticmethod
    def run(stretch: list[Item]) -> None:
        """Execute with counting semaphores; every queue must come to its end, and every count to zero."""
        tokens: Counter[int] = Counter()
        queues: dict[str, list[Command]] = defaultdict(list)
        for item in stretch:
            if isinstance(item, Credit):
                tokens[item.semaphore] += item.count
            elif isinstance(item, Command):
                queues[item.queue].append(item)
        moved = True
        while moved:
            moved = False
            for waiting in queues.values():
                while waiting and all(tokens[s] >= n for s, n in waiting[0].waits):
                    command = waiting.pop(0)
                    tokens.subtract(dict(command.waits))
                    tokens.update(dict(command.signals))
                    moved = True
        assert not any(queues.values()), "some command waits for ever"
        assert not any(tokens.values()), f"tokens are left: {tokens}"

    def happens_before(self, commands: list[Command], credits: list[Credit]) -> list[dict[str, int]]:
        """Per command the number of commands of each queue that are finished when it starts.

        Credits may all be there from the beginning, because the sequencer may run ahead.
        """
        given: Counter[int] = Counter()
        for credit in credits:
            given[credit.semaphore] += credit.count
        signalled: dict[int, list[tuple[str, int]]] = defaultdict(list)
        taken: Counter[int] = Counter()
        counts: Counter[str] = Counter()
        last: dict[str, dict[str, int]] = {}
        clocks: dict[tuple[str, int], dict[str, int]] = {}
        takers: dict[int, str] = {}
        self.position: list[int] = []
        result = []
        for command in commands:
            position = counts[command.queue]
            clock = dict(last.get(command.queue, {}))
            for semaphore, n in command.waits:
                assert takers.setdefault(semaphore, command.queue) == command.queue
                taken[semaphore] += n
                needed = taken[semaphore] - given[semaphore]
                if needed > 0:
                    queue, source = signalled[semaphore][needed - 1]
                    for q, c in {**clocks[queue, source], queue: source + 1}.items():
                        clock[q] = max(clock.get(q, 0), c)
            clocks[command.queue, position] = last[command.queue] = clock
            for semaphore, n in command.signals:
                assert all(queue == command.queue for queue, _ in signalled[semaphore])
                signalled[semaphore] += [(command.queue, position)] * n
            counts[command.queue] += 1
            self.position.append(position)
            result.append(clock)
        return result


def load(key: str, at: int, size: int = 10, **rotation: object) -> Command:
    return Command("dma", writes=(Access("dm", at, at + size, **rotation),), key=key)  # type: ignore[arg-type]


def compute(key: str, source: Access, to: int) -> Command:
    return Command("tu", reads=(source,), writes=(Access("dm", to, to + 10),), key=key)


def test_a_load_signals_its_reader_once() -> None:
    program: list[Item] = [load("w", 0), compute("a", Access("dm", 0, 10), 20), load("other", 50)]
    synchronize(program, LIMITS)
    assert [(c.waits, c.signals) for c in program if isinstance(c, Command)] == [
        ([], [(0, 1)]),
        ([(0, 1)], []),
        ([], []),
    ]
    Checker(program)


def test_a_dependence_known_through_another_queue_needs_no_token() -> None:
    """dma → tu → vector: the vector's read of the loaded bytes is covered by its wait for the tu."""
    program: list[Item] = [
        load("w", 0),
        compute("a", Access("dm", 0, 10), 20),
        Command("vector", reads=(Access("dm", 0, 30),), key="v"),
    ]
    synchronize(program, LIMITS)
    vector = program[-1]
    assert isinstance(vector, Command)
    assert len(vector.waits) == 1
    Checker(program)


def test_double_buffering_overlaps_iterations() -> None:
    """The load of iteration i + 2 waits for the pass of iteration i: two credits, one token each way."""
    loop = Loop(8, [])
    weight = Access("dm", 0, 10, copies=2, stride=10, loop=loop)
    loop.body = [load("w", 0, copies=2, stride=10, loop=loop), compute("a", weight, 100)]
    program: list[Item] = [loop, load("after", 200)]
    synchronize(program, LIMITS)
    credit = program[0]
    assert isinstance(credit, Credit)
    assert credit.count == 2
    assert len(program) == 3
    Checker(program)


def test_a_loop_at_the_end_gets_a_relay_for_its_left_over_tokens() -> None:
    loop = Loop(3, [])
    loop.body = [load("w", 0), compute("a", Access("dm", 0, 10), 100)]
    program: list[Item] = [loop]
    synchronize(program, LIMITS)
    relay = program[-1]
    assert isinstance(relay, Command)
    assert (relay.queue, relay.key, relay.waits) == ("dma", None, [(1, 1)])
    Checker(program)


def test_a_store_after_a_loop_takes_one_token_per_iteration() -> None:
    loop = Loop(5, [compute("a", Access("dm", 0, 10), 100)])
    store = Command("dma", reads=(Access("dm", 100, 110),), key="store")
    program: list[Item] = [loop, store]
    synchronize(program, LIMITS)
    assert store.waits == [(0, 5)]
    Checker(program)


def test_barriers_around_calls_fence_the_loop() -> None:
    loop = Loop(3, [load("w", 0), Barrier("call"), compute("a", Access("dm", 0, 10), 100)])
    program: list[Item] = [load("x", 300), loop]
    synchronize(program, LIMITS)
    assert isinstance(program[1], Barrier)
    assert isinstance(loop.body[-1], Barrier)
    Checker(program)


def test_a_conflict_found_in_a_later_iteration_takes_no_other_tokens() -> None:
    """Only the second load meets "b"; its token must not be the one that "x" gives for "c"."""
    loop = Loop(2, [])
    write = Access("vrf", 8, 9)
    loop.body = [
        load("x", 0, 1),
        Command("dma", writes=(Access("vrf", 0, 8, 2, 8, loop),), key="a"),
        Command("tu", writes=(write,), key="b"),
        Command("tu", writes=(Access("dm", 0, 1),), key="c"),
    ]
    program: list[Item] = [loop]
    synchronize(program, LIMITS)
    Checker(program)


_QUEUES = ("dma", "tu", "vector")


@st.composite
def _accesses(draw: st.DrawFn, loops: tuple[Loop, ...]) -> tuple[Access, ...]:
    result = []
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, 11)) * 4
        space = draw(st.sampled_from(["dm", "dm", "vrf"]))
        if loops and draw(st.booleans()):
            loop = draw(st.sampled_from(loops))
            result.append(Access(space, start, start + 8, draw(st.integers(1, 3)), 8, loop))
        else:
            result.append(Access(space, start, start + draw(st.integers(1, 16))))
    return tuple(result)


@st.composite
def _blocks(draw: st.DrawFn, loops: tuple[Loop, ...] = ()) -> list[Item]:
    items: list[Item] = []
    for k in range(draw(st.integers(1, 5))):
        kind = draw(st.integers(0, 12))
        if kind == 0:
            items.append(Barrier("call"))
        elif kind <= 3 and len(loops) < 3:
            loop = Loop(draw(st.integers(1, 5)), [])
            loop.body = draw(_blocks((*loops, loop)))
            items.append(loop)
        else:
            reads, writes = draw(_accesses(loops)), draw(_accesses(loops))
            items.append(Command(draw(st.sampled_from(_QUEUES)), reads, writes, (len(loops), k)))
    return items


@settings(deadline=None, max_examples=300)
@given(_blocks(), st.sampled_from([LIMITS, Limits(6, tokens=7, waits=1, signals=1), Limits(3, tokens=255)]))
def test_random_programs_are_ordered_and_leave_no_token(program: list[Item], limits: Limits) -> None:
    synchronize(program, limits)
    Checker(program)
