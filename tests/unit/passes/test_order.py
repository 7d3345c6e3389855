"""List scheduling: dependences hold, queues overlap, memory stays within its budget."""

from hypothesis import given
from hypothesis import strategies as st
from npuc.passes.algorithms.order import Node, Space, order, peaks, reordered

FREE = {"dm": 1 << 20}


def cycles(nodes: list[Node], positions: list[int]) -> int:
    """When the last command is done, if commands are issued in this order."""
    free: dict[str, int] = {}
    done: dict[int, int] = {}
    for i in positions:
        start = max([done[b] for b in nodes[i].after] + [free.get(q, 0) for q in nodes[i].queues], default=0)
        done[i] = start + nodes[i].cycles
        free.update(dict.fromkeys(nodes[i].queues, done[i]))
    return max(done.values())


def tiles(count: int) -> tuple[list[Node], dict[str, Space]]:
    """load, compute, store for each of some tiles, one after the other."""
    nodes: list[Node] = []
    for t in range(count):
        at = len(nodes)
        nodes += [
            Node(("dma",), 100, (), (f"in{t}",)),
            Node(("tu",), 100, (at,), (f"in{t}", f"out{t}")),
            Node(("dma",), 100, (at + 1,), (f"out{t}",)),
        ]
    return nodes, {f"{kind}{t}": Space("dm", 64) for kind in ("in", "out") for t in range(count)}


def test_loads_run_ahead_of_stores() -> None:
    nodes, spaces = tiles(4)
    found = order(nodes, spaces, FREE)
    assert cycles(nodes, list(range(12))) == 1200
    assert cycles(nodes, found) <= 900
    assert found.index(3) < found.index(2)


def test_a_tight_memory_holds_loads_back() -> None:
    nodes, spaces = tiles(3)
    found = order(nodes, spaces, {"dm": 128})
    assert peaks(reordered(nodes, found), spaces) == {"dm": 128}
    assert cycles(nodes, found) < 900


def test_the_longest_path_goes_first() -> None:
    nodes = [Node(("dma",), 10), Node(("dma",), 10), Node(("tu",), 500, (1,))]
    assert order(nodes, {}, {})[0] == 1


def test_a_loop_of_nothing_takes_no_queue() -> None:
    assert order([Node((), 0)], {}, {}) == [0]


def test_what_a_load_takes_itself_does_not_count() -> None:
    """The second load's path is longer, but less of it is left when the load is done."""
    nodes = [Node(("dma",), 10), Node(("dma",), 100), Node(("tu",), 100, (0,)), Node(("tu",), 50, (1, 2))]
    assert order(nodes, {}, {}) == [0, 1, 2, 3]
    assert cycles(nodes, order(nodes, {}, {})) == 160


def test_what_waits_for_room_holds_nothing_up() -> None:
    """Bytes are free when the last command that uses them is done, not when it has been issued."""
    nodes = [
        Node(("tu",), 1000, (), ("a",)),
        Node(("sub",), 100),
        Node(("dma",), 10, (), ("b",)),
        Node(("tu",), 10, (2,), ("b",)),
        Node(("dma",), 10, (1,)),
    ]
    found = order(nodes, {"a": Space("dm", 64), "b": Space("dm", 64)}, {"dm": 64})
    assert found.index(4) < found.index(2)


def test_two_strands_take_turns() -> None:
    """By the longest path alone both would come to their copies at the same time, and nothing beside them."""

    def strand(at: int) -> list[Node]:
        return [Node(("tu",), 100), Node(("tu",), 100, (at,)), Node(("dma",), 200, (at + 1,))]

    nodes = [*strand(0), *strand(3), Node(("tu",), 200, (2,)), Node(("tu",), 200, (5,))]
    found = order(nodes, {}, {})
    assert found.index(1) < found.index(3)
    assert cycles(nodes, found) == 800


def test_what_runs_ahead_leaves_room() -> None:
    """Two loads fill the memory, so that what the first one's product makes has to wait for the second's."""
    nodes = [
        Node(("dma",), 20, (), ("in0",)),
        Node(("tu",), 200, (0,), ("in0",)),
        Node(("tu",), 50, (1,), ("out0",)),
        Node(("dma",), 50, (2,), ("out0",)),
        Node(("dma",), 20, (), ("in1",)),
        Node(("tu",), 200, (4,), ("in1",)),
        Node(("dma",), 20, (), ("in2",)),
        Node(("tu",), 100, (6,), ("in2",)),
        Node(("tu",), 50, (7,), ("out2",)),
        Node(("dma",), 200, (8,), ("out2",)),
    ]
    spaces = {name: Space("dm", 64) for node in nodes for name in node.buffers}
    found = order(nodes, spaces, {"dm": 128})
    assert cycles(nodes, found) == 620


@st.composite
def _nodes(draw: st.DrawFn) -> tuple[list[Node], dict[str, Space]]:
    names = [f"b{k}" for k in range(draw(st.integers(0, 8)))]
    spaces = {n: Space(draw(st.sampled_from(["dm", "trf"])), draw(st.integers(1, 64))) for n in names}
    nodes: list[Node] = []
    for k in range(draw(st.integers(1, 15))):
        queues = draw(st.sets(st.sampled_from(["dma", "main", "sub"]), min_size=1, max_size=2))
        after = draw(st.sets(st.integers(0, k - 1), max_size=3)) if k else set()
        buffers = draw(st.sets(st.sampled_from(names), max_size=3)) if names else set()
        cost = draw(st.integers(1, 100))
        nodes.append(Node(tuple(sorted(queues)), cost, tuple(sorted(after)), tuple(sorted(buffers))))
    return nodes, spaces


@given(_nodes(), st.integers(0, 100))
def test_dependences_hold_and_budgets_are_kept(
    program: tuple[list[Node], dict[str, Space]], extra: int
) -> None:
    nodes, spaces = program
    budgets = {memory: size + extra for memory, size in peaks(nodes, spaces).items()}
    found = order(nodes, spaces, budgets)
    assert sorted(found) == list(range(len(nodes)))
    place = {i: n for n, i in enumerate(found)}
    assert all(place[b] < place[i] for i, node in enumerate(nodes) for b in node.after)
    moved = reordered(nodes, found)
    assert all(b < i for i, node in enumerate(moved) for b in node.after)
    assert all(used <= budgets[memory] for memory, used in peaks(moved, spaces).items())
