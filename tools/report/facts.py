"""Everything that a report shows, as one object."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import npuc
from npuc.ir.legality import PHASES
from npuc.runtime.artifact import Artifact
from npuc.tools.report.graph_view import Graph, rows_of
from npuc.tools.report.programs import facts_of, machine_data, program_data
from npuc.tools.report.recompile import Recompiled, recompile
from npuc.tools.report.weights_table import weights_data
from npuc.tools.roofline import model_sizes

if TYPE_CHECKING:
    from npuc.tools.report.drift import Drift


def report_data(artifact: Artifact, model: str | None = None) -> dict[str, Any]:
    """The facts about an artifact, for the page.

    Args:
        model: its checkpoint; None to compare no values.

    Raises:
        UserError: when the artifact keeps no IR, is damaged, or cannot be lowered by this compiler, or when
            the checkpoint is another.
    """
    drift = None if model is None else _drift(artifact, model)
    found = recompile(artifact, () if drift is None else (drift,))
    sizes = model_sizes(artifact.model_path, artifact.manifest)
    facts = [facts_of(artifact, found, program) for program in artifact.manifest.programs]
    return {
        "about": _about(artifact, found),
        "machine": machine_data(artifact.machine, artifact.manifest.dtype),
        **found.recorder.data(),
        "graphs": {
            phase: [_graph(graph) for graph in graphs] for phase, graphs in found.recorder.graphs.items()
        },
        "programs": [program_data(artifact, found, one, sizes) for one in facts],
        "weights": weights_data(found.module),
        "drift": None if drift is None else drift.data(),
        "regions": {name: asdict(region) for name, region in artifact.manifest.memory.items()},
    }


def _drift(artifact: Artifact, model: str) -> Drift:
    from npuc.tools.report.drift import Drift, evaluator_of

    return Drift(evaluator_of(artifact, model))


def _about(artifact: Artifact, found: Recompiled) -> dict[str, Any]:
    manifest = artifact.manifest
    return {
        "name": artifact.path.resolve().name,
        "source": manifest.source.name,
        "architecture": manifest.source.architecture,
        "target": manifest.target,
        "dtype": manifest.dtype,
        "npuc": manifest.npuc,
        "now": npuc.__version__,
        "same": found.same,
        "seconds": found.seconds,
        "sha256": manifest.sha256,
        "pipeline": manifest.pipeline,
        "phases": list(PHASES),
    }


def _graph(graph: Graph) -> dict[str, Any]:
    nodes = [
        [n.name, n.operation, n.module, n.type, n.origin, n.inputs, n.weights, row]
        for n, row in zip(graph.nodes, rows_of(graph.nodes), strict=True)
    ]
    return {"name": graph.name, "layers": list(graph.layers), "nodes": nodes}
