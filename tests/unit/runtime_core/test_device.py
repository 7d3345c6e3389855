"""What the device writes to main memory, and the parameters it passes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from npuc.ir.errors import UserError
from npuc.runtime.artifact import Artifact
from npuc.runtime.device import parameters, upload
from npuc.runtime.weights import WeightFile


class Memory:
    """Main memory as bytes."""

    def __init__(self) -> None:
        self.bytes = torch.zeros(4096, dtype=torch.uint8)

    def write(self, address: int, tensor: torch.Tensor) -> None:
        data = tensor.contiguous().view(torch.uint8).reshape(-1)
        self.bytes[address : address + len(data)] = data


@pytest.mark.parametrize("piece", [1 << 20, 8, 100])
def test_layers_lie_a_stride_apart(small_artifact: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    artifact = Artifact(small_artifact)
    weights, memory = artifact.weights(), Memory()
    whole = weights.pieces
    monkeypatch.setattr(WeightFile, "pieces", lambda _, name: whole(name, piece))
    for placement in artifact.manifest.weights[0].tensors:
        upload(weights, placement, memory.write)
    expected = torch.arange(128.0).reshape(2, 64)
    for layer in range(2):
        found = memory.bytes[layer * 1024 : layer * 1024 + 256].view(torch.float32)
        assert torch.equal(found, expected[layer])
    assert not memory.bytes[256:1024].any()
    assert torch.equal(memory.bytes[2048:2058].view(torch.bfloat16), weights.read("head#0"))


def test_damaged_weights_are_found_on_upload(small_artifact: Path) -> None:
    artifact = Artifact(small_artifact)
    weights = artifact.weights()
    path = small_artifact / "weights/rank0.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 4
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        upload(weights, artifact.manifest.weights[0].tensors[1], Memory().write)
    assert caught.value.kind == "damaged-weights"


def test_parameters_of_each_row() -> None:
    assert parameters([(2, 7, 3), (0, 0, 0)], rank=9, chip=1) == [9, 1, 2, 7, 3, 2, 10, 0, 0, 0, 0, 0]
