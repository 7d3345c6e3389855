"""A compile that was interrupted while it wrote weights goes on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from npuc.passes.buckets import parse_bucket
from npuc.passes.compile import compile as compile_to
from npuc.runtime.weights import WeightWriter

BUCKETS = [parse_bucket("prefill", "1x8"), parse_bucket("decode", "1x16")]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_an_interrupted_compile_goes_on(
    demo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write, stop = WeightWriter.write, 5

    def interrupted(writer: WeightWriter, name: str, pieces: Any) -> None:
        if len(written) == stop:
            raise KeyboardInterrupt
        write(writer, name, pieces)
        written.append(name)

    def run(output: str, **options: Any) -> dict[str, bytes]:
        compile_to(demo_model, tmp_path / output, target="rngd", buckets=BUCKETS, **options)
        return files(tmp_path / output)

    monkeypatch.setattr(WeightWriter, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("out")
    first, stop = list(written), 10**6
    resumed = run("out")
    assert len(written) == len(set(written)) > len(first)
    assert resumed == run("whole")
    assert written.count(first[0]) == 2


def test_another_type_begins_anew(demo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, names = WeightWriter.write, list[str]()

    def interrupted(writer: WeightWriter, name: str, pieces: Any) -> None:
        write(writer, name, pieces)
        names.append(name)
        if len(names) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(WeightWriter, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compile_to(demo_model, tmp_path / "out", target="rngd", buckets=BUCKETS)
    compile_to(demo_model, tmp_path / "out", target="rngd", buckets=BUCKETS, dtype="bfloat16")
    assert names.count(names[0]) == 2
