"""A model that the machine's main memory does not hold: refused with its weights, timed without, said so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from npuc.runtime.artifact import Artifact
from npuc.tools import irc

TOY = Path(__file__).parents[1] / "toy" / "toy.npu"
BUCKETS = ["--prefill-buckets", "1x8", "--decode-buckets", "1x16"]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The toy machine with 192 KiB of main memory."""
    text = TOY.read_text()
    assert "size 4 GiB" in text
    (tmp_path / "tiny.npu").write_text(text.replace("size 4 GiB", "size 192 KiB"))
    return tmp_path / "tiny.npu"


def test_weights_that_do_not_fit(
    demo_model: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compile", str(demo_model), "-t", str(tiny), "-o", str(tmp_path / "out"), *BUCKETS]
    capsys.readouterr()
    assert irc.main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "memory dram has 196608 bytes" in line
    assert "--no-weights for timing only" in line
    assert not (tmp_path / "out").exists()


def test_timing_without_weights(
    demo_model: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Times do not depend on where things lie: they are those of the machine that has the memory."""
    cycles: dict[str, list[int]] = {}
    for target in (str(tiny), str(TOY)):
        words = ["compile", str(demo_model), "-t", target, "-o", str(tmp_path / "out"), *BUCKETS]
        capsys.readouterr()
        assert irc.main([*words, "--no-weights"]) == 0
        text = capsys.readouterr().out
        assert ("Does not fit" in text) == (target == str(tiny))
        assert irc.main(["profile", str(tmp_path / "out"), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["fits"] == (target != str(tiny))
        cycles[target] = [program["cycles"] for program in found["programs"]]
        needed = Artifact(tmp_path / "out").manifest.main_memory_bytes
        assert 192 << 10 < needed < 4 << 30
    assert cycles[str(tiny)] == cycles[str(TOY)]
    assert irc.main(["run", str(tmp_path / "out"), "--prompt", "a"]) == 1
    assert "compiled without weights" in capsys.readouterr().err
