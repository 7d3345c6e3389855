"""Graphs as JSON for Google's Model Explorer (https://github.com/google-ai-edge/model-explorer)."""

from __future__ import annotations

from typing import Any

from npuc.runtime.artifact import Artifact
from npuc.tools.report.graph_view import Graph, Node
from npuc.tools.report.recompile import recompile


def graphs_data(artifact: Artifact) -> list[dict[str, Any]]:
    """A collection per phase that has a data-flow graph, with a graph per function.

    Of the forms that Model Explorer 0.1.34 reads, a file of several collections is the one that calls their
    graphs ``subgraphs``.

    Raises:
        UserError: when the artifact keeps no IR, or this compiler cannot lower it.
    """
    found = recompile(artifact)
    name = artifact.path.resolve().name
    return [
        {"label": f"{name} after {phase}", "subgraphs": [_graph(phase, graph, graphs) for graph in graphs]}
        for phase, graphs in found.recorder.graphs.items()
    ]


def _graph(phase: str, graph: Graph, others: list[Graph]) -> dict[str, Any]:
    """Modules are the layers of nested boxes; operations that run a function open it."""
    head, _, _ = graph.name.rpartition("/")
    names = {other.name.removeprefix(f"{head}/"): f"{phase} {other.name}" for other in others}
    nodes = [_node(i, node, names) for i, node in enumerate(graph.nodes)]
    about = {"layers": ", ".join(map(str, graph.layers))} if graph.layers else {}
    return {"id": f"{phase} {graph.name}", "nodes": nodes, "groupNodeAttributes": {"": about}}


def _node(number: int, node: Node, functions: dict[str, str]) -> dict[str, Any]:
    label = node.name if node.operation == "argument" else node.operation.removeprefix("graph.")
    attributes = {"name": node.name, "type": node.type, "module": node.module}
    attributes |= {f"weight {i}": weight for i, weight in enumerate(node.weights)}
    return {
        "id": str(number),
        "label": label,
        "namespace": node.module.replace(".", "/"),
        "subgraphIds": [functions[node.callee]] if node.callee in functions else [],
        "attrs": [{"key": key, "value": value} for key, value in attributes.items() if value],
        "incomingEdges": [
            {"sourceNodeId": str(source), "sourceNodeOutputId": "0", "targetNodeInputId": str(i)}
            for i, source in enumerate(node.inputs)
        ],
        "outputsMetadata": [{"id": "0", "attrs": [{"key": "shape", "value": node.type}]}]
        if node.type
        else [],
    }
