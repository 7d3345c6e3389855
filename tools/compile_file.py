"""`irc compile --compile-from FILE` with the flags by which mlir-opt treats a file: its pieces go through the
phases after theirs, its comments say what goes wrong, or it is a reproducer that holds its own pipeline.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from npuc.passes.compile import Compilation
from npuc.passes.instrumentation import Instrument
from npuc.tools.command import Outcome, UsageError
from npuc.tools.commands.opt import OptMain
from npuc.tools.ir_flags import FILE_FLAGS, file_flags, text_form
from xdsl.dialects.builtin import ModuleOp


class CompileMain(OptMain):
    """`irc opt` whose pipeline is what remains of a compile."""

    def __init__(
        self, arguments: argparse.Namespace, compilation: Compilation, watching: Sequence[Instrument]
    ) -> None:
        self.arguments, self.compilation, self.watching = arguments, compilation, watching
        output = [] if arguments.output is None else ["-o", str(arguments.output)]
        json = ["--json"] if arguments.json and not output else []
        super().__init__([str(arguments.compile_from), *file_flags(arguments), *output, *json])

    def setup_pipeline(self) -> None:
        super().setup_pipeline()
        self.form, self.instruments = text_form(self.arguments), list(self.watching)

    def apply_passes(self, prog: ModuleOp) -> None:
        if self.args.run_reproducer:
            super().apply_passes(prog)
        else:
            prog.verify()
            self.compilation.lower_module(prog)


def compile_file(
    arguments: argparse.Namespace, compilation: Compilation, watching: Sequence[Instrument]
) -> Outcome:
    """Treats the file of --compile-from; prints IR, or writes it to -o FILE.

    Raises:
        UsageError: without that file.
        UserError: when a piece fails, or what its comments expect does not come.
    """
    if arguments.compile_from is None:
        raise UsageError(
            f"{' and '.join(FILE_FLAGS)} are about the file of --compile-from",
            "usage: irc compile MODEL -t TARGET --compile-from FILE.mlir …",
            "irc compile",
        )
    main = CompileMain(arguments, compilation, watching)
    main.run()
    data: dict[str, Any] = {"phase": arguments.compile_to}
    if arguments.output is not None:
        return Outcome({**data, "file": str(arguments.output)})
    return Outcome({**data, "text": "// -----\n".join(main.printed)})
