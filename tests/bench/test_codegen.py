"""What compiling for RNGD costs and gives for the shapes of published models: run with --benchmark-enable.

No weights are needed: the configurations are those that the models' authors publish, the cycles come from the
timing model. `extra_info` holds cycles, the roofline and what bounds each program (`irc profile --why`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from npuc.backends.elf import parse_program
from npuc.backends.instruction import Instruction
from npuc.backends.model import Cost
from npuc.runtime.artifact import Artifact
from npuc.runtime.device import parameters
from npuc.runtime.simulator.program import load_program
from npuc.runtime.simulator.timing import simulate
from npuc.tools import irc

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "torch_dtype": "bfloat16", "attention_bias": False, "mlp_bias": False, "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "bos_token_id": 128000, "eos_token_id": 128001, "vocab_size": 128256, "max_position_embeddings": 131072,
    "num_attention_heads": 32, "num_key_value_heads": 8,
}  # fmt: skip
SCALING = {
    "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "Llama-3.2-1B": {
        **LLAMA, "hidden_size": 2048, "intermediate_size": 8192, "head_dim": 64, "num_hidden_layers": 16,
        "tie_word_embeddings": True, "rope_scaling": {**SCALING, "factor": 32.0},
    },
    "Llama-3.1-8B": {
        **LLAMA, "hidden_size": 4096, "intermediate_size": 14336, "head_dim": 128, "num_hidden_layers": 32,
        "tie_word_embeddings": False, "rope_scaling": {**SCALING, "factor": 8.0},
    },
    "Gemma-3-1B": {
        "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "hidden_size": 1152,
        "intermediate_size": 6912, "num_hidden_layers": 26, "num_attention_heads": 4,
        "num_key_value_heads": 1, "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 512,
        "sliding_window_pattern": 6,
        "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-06, "vocab_size": 262144,
        "max_position_embeddings": 32768, "rope_theta": 1000000, "rope_local_base_freq": 10000,
        "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "torch_dtype": "bfloat16",
    },
}  # fmt: skip
FP8 = {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}
WEIGHTS: dict[str, dict[str, Any]] = {"bf16": {}, "fp8": {"quantization_config": FP8}}
BUCKETS = {"decode_1x1024": "--decode-buckets=1x1024", "prefill_1x512": "--prefill-buckets=1x512"}

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _only_as_a_benchmark(request: pytest.FixtureRequest) -> None:  # pyright: ignore[reportUnusedFunction]
    if not request.config.getoption("benchmark_enable"):
        pytest.skip("takes a while: run with --benchmark-enable")


def checkpoint(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def run(capsys: Capture, *words: str | Path) -> dict[str, Any]:
    assert irc.main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def compile_(capsys: Capture, model: Path, out: Path, *flags: str) -> dict[str, Any]:
    return run(
        capsys, "compile", model, "--no-weights", "-t", "rngd", "--dtype", "bfloat16", *flags, "-o", out
    )


def cycles_without_fixed_costs(out: Path) -> int:
    """What the program would take if commands took no more than their slowest stage."""
    artifact = Artifact(out)
    (program,) = artifact.manifest.programs
    loaded = load_program(artifact.machine, parse_program(artifact.read_file(program.file), program.file))

    def cost(instruction: Instruction) -> Cost:
        found = artifact.machine.cost(instruction)
        return Cost(max(found.stages.values(), default=0), found.stages, found.dram_bytes)

    rows = [(0, program.length - program.new_tokens, program.new_tokens)]
    ranks = range(artifact.manifest.parallel.tensor_parallel)
    return simulate([(loaded, "last", parameters(rows, rank)) for rank in ranks], cost=cost)[0].cycles


@pytest.mark.parametrize("cores", [1, 8])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("model", ["Llama-3.2-1B", "Llama-3.1-8B"])
@pytest.mark.parametrize("bucket", BUCKETS)
def test_time_of_programs(
    bucket: str, model: str, weights: str, cores: int, benchmark: Any, tmp_path: Path, capsys: Capture
) -> None:
    """Times of the first rank, of all that run together; a compile's time is the benchmark's own."""
    folder, out = checkpoint(tmp_path / model, {**MODELS[model], **WEIGHTS[weights]}), tmp_path / "out"
    flags = (BUCKETS[bucket], "--tensor-parallel", str(cores))
    found = benchmark.pedantic(compile_, args=(capsys, folder, out, *flags), rounds=1, iterations=1)
    (program,) = run(capsys, "profile", out, "--why")["programs"]
    why = program["why"]
    benchmark.extra_info.update(
        cycles=program["cycles"],
        roofline_cycles=program["roofline_cycles"],
        times_the_roofline=program["cycles"] / program["roofline_cycles"],
        without_fixed_costs=cycles_without_fixed_costs(out) / program["roofline_cycles"],
        program_bytes=found["program_bytes"],
        phases={phase["name"]: phase["seconds"] for phase in found["phases"]},
        utilization=program["utilization"],
        critical_path={f"{p['queue']} {p['stage']}": p["share"] for p in why["critical_path"]},
    )


@pytest.mark.parametrize(
    ("model", "depths"), [("Llama-3.2-1B", (4, 64)), ("Gemma-3-1B", (12, 60))], ids=["equal", "periodic"]
)
def test_cost_of_depth(
    model: str, depths: tuple[int, int], benchmark: Any, tmp_path: Path, capsys: Capture
) -> None:
    """Runs of equal or periodic layers are loops: more of them make neither programs nor compiles longer."""
    found: list[dict[str, Any]] = []

    def compile_all() -> None:
        for depth in depths:
            folder = checkpoint(tmp_path / str(depth), {**MODELS[model], "num_hidden_layers": depth})
            found.append(compile_(capsys, folder, tmp_path / f"out{depth}", BUCKETS["decode_1x1024"]))

    benchmark.pedantic(compile_all, rounds=1, iterations=1)
    shallow, deep = found
    benchmark.extra_info.update(
        program_bytes=[f["program_bytes"] for f in found],
        seconds=[f["seconds"] for f in found],
        bytes_deep_to_shallow=deep["program_bytes"] / shallow["program_bytes"],
        seconds_deep_to_shallow=deep["seconds"] / shallow["seconds"],
    )
