"""Run passes over an IR file: mlir-opt for our dialects, with its flag names."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import IO, NoReturn

from npuc.ir.diagnostics import sentence, user_error
from npuc.ir.errors import UserError
from npuc.ir.printing import print_ir
from npuc.tools.command import Outcome, UsageError
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass, PassPipeline
from xdsl.utils.exceptions import ArgSpecParseError
from xdsl.xdsl_opt_main import xDSLOptMain

_PIPELINE = ("builtin.module(", ")")


class OptMain(xDSLOptMain):
    """xDSL's optimizer driver with our printer, MLIR's flag names and one-line errors."""

    def __init__(self, words: Sequence[str]) -> None:
        self.started = 0.0
        self.seconds: list[tuple[str, float]] = []
        self.printed: list[str] = []
        super().__init__(description=__doc__ or "", args=words)

    def register_all_arguments(self, arg_parser: argparse.ArgumentParser) -> None:
        super().register_all_arguments(arg_parser)
        arg_parser.prog = "irc opt"
        arg_parser.allow_abbrev = False

        def refuse(message: str) -> NoReturn:
            raise UsageError(
                message, "usage: irc opt [FILE.mlir] [-p PIPELINE] … | irc opt --help", "irc opt"
            )

        arg_parser.error = refuse
        flag = arg_parser.add_argument
        flag("--pass-pipeline", metavar="PIPELINE", help="as -p, in MLIR's spelling builtin.module(…)")
        flag(
            "--mlir-print-ir-before-all", action="store_true", help="print the IR before each pass, on stderr"
        )
        flag("--mlir-print-ir-after-all", action="store_true", help="print the IR after each pass, on stderr")
        flag("--mlir-print-op-generic", action="store_true", dest="print_op_generic", help=argparse.SUPPRESS)
        flag("--mlir-print-debuginfo", action="store_true", dest="print_debuginfo", help=argparse.SUPPRESS)
        flag(
            "--mlir-timing", action="store_true", dest="time_passes", help="print each pass's time, on stderr"
        )
        flag("--elide", action="store_true", help="leave out weight sources and large constants")
        flag("--no-type-aliases", action="store_true", help="print every type in full")
        flag("--json", action="store_true", help="print {text, passes} on stdout, for programs")

    def get_input_stream(self) -> tuple[IO[bytes], str]:
        if self.args.input_file in (None, "-"):
            return sys.stdin.buffer, "mlir"
        file, extension = super().get_input_stream()
        return file, extension if extension in self.available_frontends else "mlir"

    def setup_pipeline(self) -> None:
        text: str | None = self.args.pass_pipeline
        if text is not None:
            head, tail = _PIPELINE
            text = text.strip()
            self.args.passes = text[len(head) : -1] if text.startswith(head) and text.endswith(tail) else text
        try:
            super().setup_pipeline()
        except (ValueError, ArgSpecParseError) as error:
            known = user_error(error)
            raise known or UserError(
                "pipeline", sentence(str(error)), remedy="irc passes lists the passes"
            ) from error
        self.pipeline = PassPipeline(self.pipeline.passes, self._between_passes)

    def _between_passes(
        self, done: ModulePass | None, module: ModuleOp, following: ModulePass | None
    ) -> None:
        """Called before the first pass, after each, and between them."""
        now = time.perf_counter()
        if done is not None:
            self.seconds.append((done.name, now - self.started))
            if self.args.time_passes:
                print(f"{now - self.started:9.4f} s  {done.name}", file=sys.stderr)
            if self.args.mlir_print_ir_after_all:
                self._dump("After", done, module)
        if not self.args.disable_verify:
            module.verify()
        if following is not None and self.args.mlir_print_ir_before_all:
            self._dump("Before", following, module)
        if done is not None and following is not None and self.args.print_between_passes:
            print(f"IR after {done.name}:\n{self._text(module)}\n\n")
        self.started = time.perf_counter()

    def _dump(self, when: str, found: ModulePass, module: ModuleOp) -> None:
        name = f"{type(found).__name__} ({found.name})"
        print(f"// -----// IR Dump {when} {name} //----- //\n{self._text(module)}", file=sys.stderr)

    def _text(self, module: ModuleOp) -> str:
        return print_ir(
            module,
            generic=self.args.print_op_generic,
            locations=self.args.print_debuginfo,
            elide=self.args.elide,
            aliases=not self.args.no_type_aliases,
        )

    def output_resulting_program(self, prog: ModuleOp) -> str:
        plain = self.args.target == "mlir" and not (
            self.args.syntax_highlight or self.args.print_no_properties
        )
        text = self._text(prog) if plain else super().output_resulting_program(prog)
        if not self.args.json:
            return text
        self.printed.append(text)
        return ""


def execute_words(words: Sequence[str]) -> Outcome:
    """Run `irc opt` with these arguments."""
    main = OptMain(words)
    main.run()
    passes = [{"name": name, "seconds": seconds} for name, seconds in main.seconds]
    return Outcome({"text": "// -----\n".join(main.printed), "passes": passes})
