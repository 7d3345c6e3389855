"""Cores of a chip that share every layer: from the checkpoint to logits, times and bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import npuc
import pytest
from families import save_random
from npuc.backends.elf import parse_program
from npuc.backends.registry import load_target
from npuc.passes import stagger_rows
from npuc.passes.algorithms.geometry import geometry_of
from npuc.passes.buckets import parse_bucket
from npuc.passes.lowering import collectives
from npuc.passes.lowering.emitter import Emitter
from npuc.passes.shares import share_grid
from npuc.runtime.artifact import Artifact
from npuc.runtime.device import SimulatorDevice, parameters
from npuc.runtime.manifest import Parallel
from npuc.runtime.simulator.plan import CopyPlan
from npuc.runtime.simulator.program import load_program
from npuc.runtime.simulator.sequencer import Sequencer
from npuc.runtime.verify import verify
from npuc.tools import irc
from npuc.tools.command import size
from npuc.tools.commands.profile import time_ranks
from sanitized import FirstRunsSanitized

SIZES = [("prefill", "1x16"), ("prefill", "1x128"), ("decode", "1x32")]
BUCKETS = [parse_bucket(kind, size) for kind, size in SIZES]
LAYERS, HIDDEN = 4, 128  # of the demonstration model
GROUPS = 2
EIGHT_HEADS = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": 128,
    "num_hidden_layers": 2,
}

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def artifact(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    made: dict[int, Path] = {}

    def make(ranks: int) -> Path:
        if ranks not in made:
            made[ranks] = tmp_path_factory.mktemp("tensor-parallel") / f"{ranks}"
            npuc.compile(demo_model, made[ranks], target="rngd", buckets=BUCKETS, tensor_parallel=ranks)
        return made[ranks]

    return make


@pytest.mark.parametrize("ranks", [2, 8])
def test_logits_are_those_of_transformers(
    artifact: Callable[[int], Path], ranks: int, demo_model: Path, tmp_path: Path
) -> None:
    """On eight cores two heads of keys are repeated, and four of queries leave four cores' attention idle."""
    device = FirstRunsSanitized(Artifact(artifact(ranks)))
    (tmp_path / "text").write_text("The function returns a list, or None.")
    found = verify(artifact(ranks), demo_model, tmp_path / "text", device=device)
    assert found["max_rel_error"] < 1e-5
    assert device.hazards == []


def least(ranks: int, tensor: int) -> int:
    """What an all-reduce in two steps reads of the other ranks'."""
    return 2 * (ranks - 1) * tensor // ranks


def shortest(ranks: int, tensor: int) -> int:
    """What one in one step reads."""
    return (ranks - 1) * tensor


@pytest.mark.parametrize(
    ("program", "ranks", "steps", "textbook"),
    [
        ("decode_1x32", 8, 1, shortest),
        ("prefill_1x16", 2, 1, shortest),
        ("prefill_1x128", 8, 2, least),
    ],
)
def test_two_all_reduces_a_layer(
    artifact: Callable[[int], Path], program: str, ranks: int, steps: int, textbook: Callable[[int, int], int]
) -> None:
    """Of a few tokens in one step, of many in two, as the textbook has them."""
    device = SimulatorDevice(Artifact(artifact(ranks)))
    width = geometry_of(device.simulator.machine).padded(HIDDEN)  # as hidden states lie in the slices
    (found,) = [p for p in device.programs if p.name == program]
    loaded, tokens = device.load(found), found.new_tokens
    trace = Sequencer(loaded).trace("last", parameters([(0, 0, tokens)]))
    plans = [plan for at in trace if isinstance(plan := loaded.items[at].plan, CopyPlan) and plan.meet]
    assert len(plans) == LAYERS * 2 * steps
    from_others = sum(_bytes(plan) * (ranks - 1) // ranks for plan in plans)
    assert from_others == LAYERS * 2 * textbook(ranks, tokens * width * 4)


class Chips(NamedTuple):
    """An artifact for several chips, its ranks, and how many steps they take between each other."""

    artifact: Path
    number: int
    ranks: int
    steps: int


SMALL = {
    "two of two cores": (2, 2, 1, {"level core 4 ": "level core 1 "}),
    "three of one": (3, 1, 1, {"level core 4 ": "level core 1 ", "level cluster 2 ": "level cluster 1 "}),
    "four of one": (
        4,
        1,
        2,
        {
            "level core 4 ": "level core 1 ",
            "level cluster 2 ": "level cluster 1 ",
            "bandwidth 30 ": "bandwidth 1 ",
        },
    ),
}
"""Machines that are RNGD otherwise; over a slow link two steps are faster than one."""


@pytest.fixture(scope="module", params=SMALL)
def chips(
    request: pytest.FixtureRequest, demo_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Chips:
    """Their cores are the ranks; three of those share no size of the model equally."""
    count, cores, steps, _ = SMALL[request.param]
    folder = tmp_path_factory.mktemp("chips")
    small = _small(request.param, folder)
    ranks = count * cores
    npuc.compile(demo_model, folder / "out", target=small, buckets=BUCKETS[:1], tensor_parallel=ranks)
    return Chips(folder / "out", count, ranks, steps)


def _small(name: str, folder: Path) -> str:
    """The description of a small machine, in a file."""
    text = Path(load_target("rngd").machine.file).read_text()
    for old, new in SMALL[name][3].items():
        assert old in text
        text = text.replace(old, new)
    (folder / "small.npu").write_text(text)
    return str(folder / "small.npu")


def test_logits_of_several_chips(chips: Chips, demo_model: Path, tmp_path: Path) -> None:
    device = FirstRunsSanitized(Artifact(chips.artifact))
    (tmp_path / "text").write_text("The function returns a list, or None.")
    found = verify(chips.artifact, demo_model, tmp_path / "text", device=device)
    assert found["max_rel_error"] < 1e-5
    assert device.hazards == []


def test_the_link_carries_the_least_bytes(chips: Chips, capsys: Capture) -> None:
    """An all-reduce brings each chip chips − 1 tensors, in two steps 2 / chips of that; each rank a part."""
    artifact = Artifact(chips.artifact)
    assert artifact.manifest.parallel == Parallel(chips.ranks, chips.number)
    program, ranks = artifact.manifest.programs[0], chips.ranks
    timelines = time_ranks(artifact, program, artifact.machine)
    tensor = program.new_tokens * geometry_of(artifact.machine).padded(HIDDEN) * 4
    least = (chips.number - 1) * tensor * (chips.number, 2)[chips.steps - 1] // ranks
    # Positions and logits are with the first chip: ranks of others have them read into each slice and write
    # their columns.
    positions = 4 * artifact.machine.slices * program.new_tokens
    own = positions + prod(program.io["logits_last"].shape) * 4 // ranks
    for rank, more in ((0, 0), (ranks - 1, own)):
        assert timelines[rank].link_bytes == LAYERS * 2 * least + more
    assert irc.main(["profile", str(chips.artifact)]) == 0
    assert f" {size(sum(timeline.link_bytes for timeline in timelines))} " in capsys.readouterr().out
    text = artifact.read_file(program.file)
    items = load_program(artifact.machine, parse_program(text, "")).items
    meetings = [item.plan.meet for item in items if isinstance(item.plan, CopyPlan)]
    assert meetings.count("system") == 2 * chips.steps


@pytest.mark.parametrize(
    ("machine", "hidden"),
    [
        ("rngd", 64),  # shares of rows are cut
        ("rngd", 1024),  # they lie on a grid of slices
        ("two of two cores", 64),
        ("four of one", 64),
    ],
)
def test_groups_of_rows_take_turns(
    machine: str, hidden: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums of both groups are under way at once; a model so small would gain nothing by it."""
    monkeypatch.setattr(stagger_rows, "pays", lambda *_: True)
    target = _small(machine, tmp_path) if machine in SMALL else machine
    save_random("LlamaConfig", {**EIGHT_HEADS, "hidden_size": hidden}, tmp_path / "model")
    flags = ["-t", target, "--prefill-buckets", "1x128", "--tensor-parallel", "4", "--check=phases"]
    assert irc.main(["compile", str(tmp_path / "model"), *flags, "-o", str(tmp_path / "out")]) == 0
    device = FirstRunsSanitized(Artifact(tmp_path / "out"))
    loaded = device.load(device.programs[0])
    plans = [item.plan for item in loaded.items if isinstance(item.plan, CopyPlan) and item.plan.meet]
    gathered = machine == "rngd"  # at the end; ranks of one chip have shares of the rows
    assert sum(plan.meet == "chip" for plan in plans) == GROUPS * (2 * 2 + gathered)
    found = verify(tmp_path / "out", tmp_path / "model", max_documents=2, device=device)
    assert found["max_rel_error"] < 1e-5
    assert device.hazards == []


def test_sums_by_way_of_a_grid_of_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All-reduces that stay whole: a rank's share of the rows lies on a grid before it is gathered."""
    save_random("LlamaConfig", {**EIGHT_HEADS, "hidden_size": 1024}, tmp_path / "model")
    monkeypatch.setattr(stagger_rows, "pays", lambda *_: False)
    monkeypatch.setattr(Emitter, "cheapest_of", lambda _, ways, *__: ways[0]())  # whether faster or not
    grids: list[object] = []

    def noted(*words: Any) -> object:
        grids.append(share_grid(*words))
        return grids[-1]

    monkeypatch.setattr(collectives, "share_grid", noted)
    npuc.compile(tmp_path / "model", tmp_path / "out", target="rngd", buckets=BUCKETS[1:2], tensor_parallel=4)
    device = FirstRunsSanitized(Artifact(tmp_path / "out"))
    found = verify(tmp_path / "out", tmp_path / "model", max_documents=2, device=device)
    assert grids
    assert None not in grids
    assert found["max_rel_error"] < 1e-5
    assert device.hazards == []


def _bytes(plan: CopyPlan) -> int:
    return prod(plan.spec.size) * plan.spec.item


def test_tools_know_of_all_ranks(artifact: Callable[[int], Path], tmp_path: Path, capsys: Capture) -> None:
    path = str(artifact(2))
    assert irc.main(["inspect", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parallel"] == {"tensor_parallel": 2, "chips": 1}
    assert irc.main(["profile", path, "--program", "decode_1x32", "--trace", f"{tmp_path}/t", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["programs"]
    assert found["cycles"] > found["roofline_cycles"]
    assert found["link_bytes"] == 0
    assert {event["pid"] for event in json.loads((tmp_path / "t").read_text())["traceEvents"]} == {0, 1}
    assert irc.main(["sim", path, "--program", "decode_1x32", "--sanitize", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"]


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ("9", "9 ranks are asked for, a chip of rngd has 8 cores"),
        ("0", "0 ranks are asked for, a chip of rngd has 8 cores"),
        ("12", "12 ranks are asked for, a chip of rngd has 8 cores"),
        ("64", "64 ranks are asked for, a chip of rngd has 8 cores"),
    ],
)
def test_too_many_ranks(ranks: str, message: str, demo_model: Path, tmp_path: Path, capsys: Capture) -> None:
    flags = ["-t", "rngd", "--tensor-parallel", ranks, "-o", str(tmp_path / "out"), "--json"]
    assert irc.main(["compile", str(demo_model), *flags]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["message"] == message
    assert error["remedy"] == "use 1 to 8, 16, 24 or 32"
    assert not (tmp_path / "out").exists()


def test_a_machine_whose_cores_cannot_wait(demo_model: Path, tmp_path: Path, capsys: Capture) -> None:
    toy = Path(__file__).parents[1] / "toy" / "toy.npu"
    flags = ["-t", str(toy), "--tensor-parallel", "2", "-o", str(tmp_path / "out"), "--json"]
    assert irc.main(["compile", str(demo_model), *flags]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["message"] == "no copy of toy waits for other cores (field meet)"
    assert error["remedy"] == "toy runs programs on one core only"
