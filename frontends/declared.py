"""A checkpoint of which only the configuration is there: its tensors are declared, without values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from npuc.frontends.checkpoint import Checkpoint
from npuc.frontends.safetensors import DTYPES, TensorSource
from torch import nn

_NAMES = {dtype: name for name, (_, dtype) in DTYPES.items() if dtype is not None}


@dataclass(frozen=True)
class DeclaredCheckpoint(Checkpoint):
    """Holds every parameter and buffer of `model`, of its shape and type, in a file without name.

    Reading one is refused where weights are read; that is enough to compile a program for timing. Scales by
    which layers quantize one input are taken to be equal, as those are that calibration finds.
    """

    model: nn.Module

    has_values = False

    @cached_property
    def tensors(self) -> dict[str, TensorSource]:
        """The tensors of the model's state, tied ones under each of their names."""
        state = self.model.state_dict(keep_vars=True)
        return {
            name: TensorSource("", 0, v.numel() * v.element_size(), _NAMES[v.dtype], tuple(v.shape))
            for name, v in state.items()
        }
