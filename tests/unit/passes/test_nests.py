"""A nest cut to a machine's limits visits the same elements in the same order."""

from collections.abc import Sequence
from itertools import product

from hypothesis import assume, given
from hypothesis import strategies as st
from npuc.passes.algorithms.nests import PLAIN, REDUCED, Dim, fit


def visited(dims: Sequence[Dim]) -> list[tuple[int, ...]]:
    """Offsets of all operands, in order."""
    operands = len(dims[0].strides) if dims else 0
    return [
        tuple(sum(i * d.strides[o] for i, d in zip(at, dims, strict=True)) for o in range(operands))
        for at in product(*(range(d.size) for d in dims))
    ]


def test_a_dense_nest_becomes_one_entry() -> None:
    dims = [Dim(2, (12, 0)), Dim(3, (4, 0)), Dim(4, (1, 0))]
    assert fit(dims, 1, 100) == [Dim(24, (1, 0))]


def test_special_entries_stay() -> None:
    dims = [Dim(1, (5,), "ring"), Dim(1, (9,)), Dim(4, (1,))]
    assert fit(dims, 8, 100) == [Dim(1, (5,), "ring"), Dim(4, (1,))]


def test_a_long_entry_is_cut() -> None:
    assert fit([Dim(151_936, (2,))], 8, 65_536) == [Dim(4, (75_968,)), Dim(37_984, (2,))]


def test_a_long_prime_does_not_fit() -> None:
    assert fit([Dim(65_537, (1,))], 8, 65_536) is None


def test_kept_and_reduced_entries_are_not_merged() -> None:
    assert fit([Dim(2, (4, 0), REDUCED), Dim(4, (1, 0))], 1, 100) is None


_dims = st.lists(
    st.builds(
        Dim,
        st.integers(1, 6),
        st.tuples(st.sampled_from([0, 1, 2, 4, 12]), st.sampled_from([0, 1, 2, 4, 8])),
        st.sampled_from([PLAIN, PLAIN, REDUCED, "mask"]),
    ),
    min_size=1,
    max_size=5,
)


@given(_dims, st.integers(1, 5), st.integers(2, 24))
def test_the_same_elements_in_the_same_order(dims: list[Dim], entries: int, iterations: int) -> None:
    fitted = fit(dims, entries, iterations)
    assume(fitted is not None)
    assert fitted is not None
    assert len(fitted) <= entries
    assert all(dim.size <= iterations for dim in fitted)
    assert visited(fitted) == visited(dims) if fitted else len(visited(dims)) == 1
    assert [d for d in fitted if not d.free] == [d for d in dims if not d.free]
