"""Weight recipes: what transformers' conversions of checkpoints record, and reading them back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from npuc.frontends.recipe_tensor import RecipeTensor
from npuc.frontends.recipes import rearrange, recipe, source_attr
from npuc.frontends.safetensors import read_checkpoint
from npuc.frontends.weight_reader import WeightReader
from npuc.ir.errors import UserError
from npuc.ir.graph import WeightOp
from torch import Tensor
from xdsl.dialects.builtin import DictionaryAttr, StringAttr, TensorType, bf16, f32

A, B = torch.arange(12.0).reshape(3, 4), torch.arange(12.0, 24.0).reshape(3, 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    safetensors.torch.save_file({"a": A, "b": B}, tmp_path / "model.safetensors")
    return tmp_path


def sources(folder: Path) -> list[DictionaryAttr]:
    found = read_checkpoint(folder)
    return [source_attr(found[name]) for name in ("a", "b")]


CASES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "stack": lambda a, b: torch.stack([a, b], 1),
    "concatenate": lambda a, b: torch.cat([a, b], dim=-1),
    "transpose": lambda a, b: a.transpose(0, 1).contiguous(),
    "transposed": lambda a, b: a.T,
    "permute": lambda a, b: torch.stack([a, b]).permute(2, 0, 1),
    "view": lambda a, b: a.contiguous().view(2, 6).reshape(-1),
    "chunk": lambda a, b: torch.chunk(torch.cat([a, b]), 3, dim=0)[1],
    "split": lambda a, b: torch.split(a, [1, 3], dim=1)[1],
    "slice": lambda a, b: a[-2:, 1:3],
    "select": lambda a, b: torch.stack([a, b])[1],
    "unsqueeze": lambda a, b: a.unsqueeze(0).squeeze(0).unsqueeze(-1),
    "cast": lambda a, b: a.to(torch.bfloat16).clone(),
    "rope permutation": lambda a, b: a.view(3, 2, 2).transpose(1, 2).reshape(3, 4),
}


@pytest.mark.parametrize("name", CASES)
def test_recorded_recipes(name: str, folder: Path) -> None:
    """A conversion of recording tensors, evaluated later, gives what it gives on values."""
    recorded = [RecipeTensor(s, (3, 4), torch.float32) for s in sources(folder)]
    result = CASES[name](*recorded)
    want = CASES[name](A, B).float()
    assert tuple(result.shape) == tuple(want.shape)
    assert torch.equal(WeightReader(folder).evaluate(result.recipe).float(), want)


@pytest.mark.parametrize("rank", [0, 1])
def test_rows_are_read_alone(folder: Path, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a slice, or of a rank's share, are byte ranges; rows of anything else come of the whole."""
    a, b = sources(folder)
    shard = recipe("shard", recipe("slice", a, dim=0, start=1, stop=3), dim=0, parts=2)
    half = recipe("shard", recipe("reshape", b, shape=(6, 2)), dim=0, parts=2)
    first = recipe("slice", a, dim=0, start=0, stop=2)
    cases = [
        (recipe("slice", a, dim=0, start=1, stop=3), A[1:3], True),
        (recipe("shard", first, dim=0, parts=2), A[rank : rank + 1], True),
        (shard, A[1 + rank : 2 + rank], True),
        (recipe("slice", a, dim=1, start=1, stop=3), A[:, 1:3], False),
        (recipe("slice", half, dim=0, start=1, stop=3), B.reshape(6, 2)[3 * rank + 1 : 3 * rank + 3], False),
    ]
    for source, want, ranged in cases:
        reader = WeightReader(folder, rank=rank)
        weight = WeightOp("w", TensorType(f32, list(want.shape)), [source])
        whole: list[DictionaryAttr] = []

        def evaluate(source: DictionaryAttr, reader: WeightReader = reader, seen: Any = whole) -> Tensor:
            seen.append(source)
            return WeightReader.evaluate(reader, source)

        monkeypatch.setattr(reader, "evaluate", evaluate)
        rows = reader.rows(weight)
        for start in range(want.shape[0]):
            assert torch.equal(rows(start, start + 1), want[start : start + 1])
        assert bool(whole) != ranged


def test_conversions_that_compute_have_no_recipe(folder: Path) -> None:
    with pytest.raises(UserError, match=r"aten\.mul") as caught:
        _ = RecipeTensor(sources(folder)[0], (3, 4), torch.float32) * 2
    assert caught.value.kind == "unsupported-conversion"


def test_rearranged_weights(folder: Path) -> None:
    source, shape = rearrange(sources(folder)[0], (3, 4), [("permute", (1, 0)), ("reshape", (2, 6))])
    assert shape == (2, 6)
    assert source.data["source"].data["op"] == StringAttr("transpose")
    assert torch.equal(WeightReader(folder).evaluate(source), A.T.reshape(2, 6))


def test_reading_a_symbol(folder: Path) -> None:
    a, b = sources(folder)
    layered = WeightOp("w{}", TensorType(bf16, [3, 4]), [a, b], [2, 5])
    reader = WeightReader(folder, keep=True)
    assert torch.equal(reader.read(layered, 5), B.to(torch.bfloat16))
    assert reader.read(layered, 5) is reader.read(layered, 5)
    wrong = WeightOp("w", TensorType(f32, [4, 3]), [a])
    with pytest.raises(UserError, match=r"gives shape \[3, 4\], the type says \[4, 3\]"):
        reader.read(wrong)


def test_hostile_recipes(folder: Path) -> None:
    source = sources(folder)[0]
    outside = DictionaryAttr(dict(source.data) | {"file": StringAttr("../model.safetensors")})
    with pytest.raises(UserError, match="not in the checkpoint's directory"):
        WeightReader(folder).evaluate(outside)
    with pytest.raises(UserError, match="unknown weight recipe 'melt'"):
        WeightReader(folder).evaluate(recipe("melt", source))
    with pytest.raises(UserError, match="cannot be read"):
        WeightReader(folder / "elsewhere").evaluate(source)
