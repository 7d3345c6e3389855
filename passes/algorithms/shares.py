"""How blocks (heads, features, rows of a vocabulary) are dealt to ranks in equal shares.

A share is a run of blocks. What is dealt is a list of block numbers, as many for each rank, rank after rank;
EMPTY stands for a block of zeros.
"""

from __future__ import annotations

EMPTY = -1


def deal(blocks: int, ranks: int) -> tuple[int, ...]:
    """All blocks in order, padded to equal shares."""
    return (*range(blocks), *[EMPTY] * (-blocks % ranks))


def deal_groups(heads: int, key_heads: int, ranks: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Heads and the heads of keys that groups of them share.

    Each rank gets heads whose keys it has, as many to each head of keys. Where there are more ranks than
    heads of keys, several ranks have a copy of the same and divide its heads.

    Returns:
        the heads and the heads of keys that are dealt.
    """
    group = heads // key_heads
    if key_heads >= ranks:
        keys = deal(key_heads, ranks)
        return tuple(h for k in keys for h in _members(k, 0, group, group)), keys
    copies = ranks // key_heads
    part = -(-group // copies)
    dealt, keys = list[int](), list[int]()
    for rank in range(ranks):
        key, copy = divmod(rank, copies)
        key = key if key < key_heads else EMPTY
        keys.append(key)
        dealt += _members(key, copy * part, part, group)
    return tuple(dealt), tuple(keys)


def _members(key: int, first: int, count: int, group: int) -> list[int]:
    """So many heads of a group from one on; those that it does not have are empty."""
    numbers = range(first, first + count)
    return [key * group + n if key != EMPTY and n < group else EMPTY for n in numbers]
