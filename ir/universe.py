"""Registration of dialects and passes with xDSL: lazy factories, nothing else."""

from __future__ import annotations

from xdsl.universe import Universe

NPUC_UNIVERSE = Universe(all_dialects={}, all_passes={})
