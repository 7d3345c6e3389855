"""Times of commands on in-order queues, and of the buffers that they use."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from npuc.passes.algorithms.hazards import Access, Barrier, Command, Item, Loop
from npuc.passes.algorithms.timeline import Run, lives, timeline

BYTES = 8


def command(queue: str, cycles: int, reads: str = "", writes: str = "") -> Command:
    """One that uses buffers with names of one letter."""
    used = [tuple(Access(name, 0, BYTES) for name in names) for names in (reads, writes)]
    return Command(queue, *used, key=cycles)


def cycles_of(item: Command) -> int:
    assert isinstance(item.key, int)
    return item.key


def times(runs: list[Run]) -> list[tuple[int, int, int]]:
    return [(run.start, run.finish, run.latest) for run in runs]


def test_loads_run_ahead_and_may_wait_until_they_are_needed() -> None:
    program: list[Item] = [
        command("dma", 10, writes="a"),
        command("dma", 10, writes="b"),
        command("main", 30, reads="a", writes="x"),
        command("main", 30, reads="b", writes="y"),
    ]
    assert times(timeline(program, cycles_of)) == [(0, 10, 0), (10, 20, 30), (10, 40, 10), (40, 70, 40)]


def test_a_barrier_holds_all_queues() -> None:
    program: list[Item] = [command("dma", 10), command("main", 4), Barrier(), command("main", 1)]
    assert times(timeline(program, cycles_of)) == [(0, 10, 0), (0, 4, 6), (10, 11, 10)]


def test_a_loop_is_walked_three_times_and_the_middle_stands_for_the_rest() -> None:
    loop = Loop(10, [])
    copies = Access("s", 0, BYTES, 2, BYTES, loop)
    loop.body = [Command("dma", (), (copies,), 5), Command("main", (copies,), (), 20)]
    runs = timeline([loop], cycles_of)
    assert times(runs) == [(0, 5, 0), (5, 25, 5), (5, 10, 20), (25, 45, 25), (25, 30, 40), (45, 65, 45)]
    (whole,) = lives(runs, {"s": 0})["s"]
    assert (whole.order, whole.ready, whole.latest, whole.finish, whole.weight) == (0, 0, 0, 65, 1)
    each = lives(runs, {"s": 1})["s"]
    assert [(life.ready, life.finish, life.weight) for life in each] == [(0, 25, 1), (5, 45, 8), (25, 65, 1)]


def test_a_short_loop_stands_for_itself() -> None:
    runs = timeline([Loop(2, [command("main", 3, writes="a")])], cycles_of)
    assert [life.weight for life in lives(runs, {"a": 1})["a"]] == [1, 1]


def random_program(choose: random.Random, depth: int = 0) -> list[Item]:
    items: list[Item] = []
    for _ in range(choose.randint(1, 5)):
        if depth < 2 and choose.random() < 0.25:
            items.append(Loop(choose.randint(1, 5), random_program(choose, depth + 1)))
        else:
            names = ["".join(choose.sample("abcdef", choose.randint(0, 2))) for _ in range(2)]
            items.append(command(choose.choice(["main", "sub", "dma"]), choose.randint(1, 50), *names))
    return items


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 1 << 32), st.booleans())
def test_both_schedules_keep_order_and_data(seed: int, late: bool) -> None:
    """Of any two runs that conflict or share a queue the later one begins after the earlier one has ended."""
    runs = timeline(random_program(random.Random(seed)), cycles_of)
    end = max(run.finish for run in runs)
    begin = [run.latest if late else run.start for run in runs]
    stop = [at + cycles_of(run.command) for at, run in zip(begin, runs, strict=True)]
    assert all(run.start <= run.latest for run in runs)
    assert max(stop) == end
    for k, run in enumerate(runs):
        for i, earlier in enumerate(runs[:k]):
            if run.command.queue == earlier.command.queue or _conflict(earlier.command, run.command):
                assert stop[i] <= begin[k]


def _conflict(a: Command, b: Command) -> bool:
    return bool({*a.writes} & {*b.reads, *b.writes} or {*a.reads} & {*b.writes})
