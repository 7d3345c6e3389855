"""Bucket lists: spellings, defaults, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from npuc.ir.errors import UserError
from npuc.passes.buckets import Bucket, choose_buckets, parse_bucket, parse_buckets


def test_spellings() -> None:
    assert parse_buckets("prefill", "1x128,1x512") == (
        Bucket("prefill", 1, 128, 128),
        Bucket("prefill", 1, 512, 512),
    )
    assert parse_buckets("decode", " 4x1024 ,4x1024") == (Bucket("decode", 4, 1, 1024),)
    (extend,) = parse_buckets("extend", "1x128x512")
    assert (extend.batch, extend.new_tokens, extend.length) == (1, 128, 512)
    assert extend.name == "extend_1x128x512"


@given(
    st.sampled_from(["prefill", "decode", "extend"]), st.lists(st.integers(1, 9999), min_size=3, max_size=3)
)
def test_every_bucket_parses_back(kind: str, sizes: list[int]) -> None:
    batch, *rest = sizes
    new, length = sorted(rest)
    new = {"prefill": length, "decode": 1, "extend": new}[kind]
    bucket = Bucket(kind, batch, new, length)
    assert parse_bucket(kind, str(bucket)) == bucket


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("prefill", "128", "--prefill-buckets: '128' is not a bucket BxN (write it like 1x128)"),
        ("decode", "1x-4", "--decode-buckets: '1x-4' is not a bucket BxL (write it like 4x1024)"),
        ("decode", "0x4", "--decode-buckets: bucket 0x4 has a size of 0 (every size is at least 1)"),
        ("extend", "1x²x3", "--extend-buckets: '1x²x3' is not a bucket BxNxL (write it like 1x128x512)"),
        ("extend", "1x9x8", "--extend-buckets: bucket 1x9x8 has 9 new tokens but attends to 8 positions"),
        ("prefill", ",", "--prefill-buckets: the list of buckets is empty"),
    ],
)
def test_refused_spellings(kind: str, text: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_buckets(kind, text)
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(
    ("context", "max_context", "names"),
    [
        (64, None, ["prefill_1x64", "decode_1x64"]),
        (512, None, ["prefill_1x128", "decode_1x512", "extend_1x128x512"]),
        (131072, None, ["prefill_1x128", "decode_1x1024", "extend_1x128x1024"]),
        (131072, 8192, ["prefill_1x128", "decode_1x8192", "extend_1x128x8192"]),
    ],
)
def test_default(context: int, max_context: int | None, names: list[str]) -> None:
    assert [b.name for b in choose_buckets((), context=context, max_context=max_context)] == names


def test_order_does_not_depend_on_the_command_line() -> None:
    listed = [*parse_buckets("decode", "4x64,1x64"), *parse_buckets("prefill", "1x64,1x32")]
    names = [b.name for b in choose_buckets(listed, context=64, max_context=None)]
    assert names == ["prefill_1x32", "prefill_1x64", "decode_1x64", "decode_4x64"]


def test_buckets_beyond_the_context_are_refused() -> None:
    too_long = parse_buckets("decode", "1x513")
    with pytest.raises(UserError, match="attends to 513 positions, the model's context is 512"):
        choose_buckets(too_long, context=512, max_context=None)
    with pytest.raises(UserError, match="attends to 513 positions, --max-context is 256"):
        choose_buckets(too_long, context=1024, max_context=256)
    for bound in (0, 513):
        with pytest.raises(UserError, match=f"--max-context: {bound} is not between 1 and .* of 512"):
            choose_buckets((), context=512, max_context=bound)
