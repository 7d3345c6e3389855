"""Run passes over an IR file: mlir-opt for our dialects, with its flag names."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import IO, NoReturn

from npuc.ir.diagnostics import pipeline_error
from npuc.ir.errors import UserError
from npuc.ir.files import write_atomically
from npuc.ir.parsing import LocatedParser
from npuc.ir.printing import ELIDED, TextForm, print_ir
from npuc.passes.instrumentation import Instrument, Timing, parse_pipeline_text, run_pipeline
from npuc.passes.reproducer import split_reproducer, without_resources
from npuc.tools.command import Outcome, UsageError
from npuc.tools.ir_flags import add_ir_flags, instruments, text_form
from npuc.tools.paths import writable
from npuc.tools.verify_diagnostics import diagnostics, expectations, problems
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import ArgSpecParseError
from xdsl.xdsl_opt_main import xDSLOptMain


@dataclass
class BetweenPasses(Instrument):
    """xDSL's --print-between-passes, on stdout."""

    form: TextForm
    done: ModulePass | None = None

    def before_pass(self, step: ModulePass, module: ModuleOp) -> None:
        if self.done is not None:
            print(f"IR after {self.done.name}:\n{print_ir(module, form=self.form)}\n\n")
        self.done = step


class Written(io.StringIO):
    """What goes to the output file, once all has gone well: that may be the input, too."""

    def close(self) -> None:
        """Keeps the text: xDSL closes what it wrote to."""


class OptMain(xDSLOptMain):
    """xDSL's optimizer driver with our printer, MLIR's flag names and one-line errors."""

    def __init__(self, words: Sequence[str]) -> None:
        self.printed: list[str] = []
        self.written = Written()
        super().__init__(description=__doc__ or "", args=words)
        if self.args.output_file is not None:
            writable(self.args.output_file)

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
        flag("--run-reproducer", action="store_true", help="run the pipeline that the file itself holds")
        flag("--elide", action="store_true", help="leave out weight sources and large constants")
        flag("--json", action="store_true", help="print {text, passes} on stdout, for programs")
        add_ir_flags(arg_parser, verify_each=True)

    def get_input_stream(self) -> tuple[IO[bytes], str]:
        if self.args.input_file in (None, "-"):
            return sys.stdin.buffer, "mlir"
        file, extension = super().get_input_stream()
        return file, extension if extension in self.available_frontends else "mlir"

    def prepare_output(self) -> IO[str]:
        return sys.stdout if self.args.output_file is None else self.written

    def setup_pipeline(self) -> None:
        if self.args.pass_pipeline is not None:
            self.args.passes = parse_pipeline_text(self.args.pass_pipeline)
        self._parse_pipeline()
        self.form = self._form()
        if self.args.disable_verify:
            self.args.verify_each = False
        self.instruments = instruments(self.args)
        self.timing = next(i for i in self.instruments if isinstance(i, Timing))
        self.timing.report |= self.args.time_passes
        if self.args.print_between_passes:
            self.instruments.insert(0, BetweenPasses(self.form))

    def _parse_pipeline(self) -> None:
        try:
            super().setup_pipeline()
        except (ValueError, ArgSpecParseError) as error:
            raise pipeline_error(error) from error

    def _form(self) -> TextForm:
        """How to print: MLIR's flags, or xDSL's names of them."""
        args, form = self.args, text_form(self.args)
        if args.elide:
            form = replace(form, max_elements=ELIDED.max_elements, max_resource=ELIDED.max_resource)
        return replace(
            form,
            generic=form.generic or args.print_op_generic,
            locations=form.locations or args.print_debuginfo,
        )

    def parse_chunk(self, chunk: IO[bytes], file_extension: str, start_offset: int = 0) -> ModuleOp | None:
        if file_extension != "mlir":
            return super().parse_chunk(chunk, file_extension, start_offset)
        return self._parse(chunk.read().decode("utf-8"), start_offset)

    def _parse(self, text: str, first_line: int) -> ModuleOp:
        if self.args.run_reproducer:
            text, pipeline = split_reproducer(text, self.get_input_name())
            self.args.passes = parse_pipeline_text(pipeline)
            self._parse_pipeline()
        parser = LocatedParser(self.ctx, without_resources(text), self.get_input_name(), first_line)
        return parser.parse_module(not self.args.no_implicit_module)

    def apply_passes(self, prog: ModuleOp) -> None:
        if not self.args.disable_verify:
            prog.verify()
        run_pipeline(self.ctx, prog, self.pipeline.passes, self.instruments)

    def run(self) -> None:
        try:
            if not (self.args.verify_diagnostics and self._run_expecting()):
                super().run()
            if self.args.output_file is not None:
                write_atomically(self.args.output_file, self.written.getvalue().encode())
        finally:
            for instrument in self.instruments:
                instrument.finish()

    def _run_expecting(self) -> bool:
        """Checks the expectations that the file's comments state; False if there is none.

        Raises:
            UserError: when anything is missing or unexpected.
        """
        file, extension = self.get_input_stream()
        with closing(file):
            text = file.read().decode("utf-8")
        if extension != "mlir" or not expectations(text):
            return False
        wrong: list[str] = []
        line, output = 0, self.prepare_output()
        for i, piece in enumerate(text.split("// -----") if self.args.split_input_file else [text]):
            padded = "\n" * line + piece  # so that lines are those of the file
            module, found = diagnostics(lambda padded=padded: self._parse(padded, 0), self.apply_passes)
            wrong += problems(expectations(padded), found)
            output.write("// -----\n" if i else "")
            output.write("" if module is None else self.output_resulting_program(module))
            line += piece.count("\n")
        if wrong:
            error = UserError("diagnostics", wrong[0], where=self.get_input_name())
            for text in wrong[1:]:
                error.add_note(text)
            raise error
        return True

    def output_resulting_program(self, prog: ModuleOp) -> str:
        plain = self.args.target == "mlir" and not (
            self.args.syntax_highlight or self.args.print_no_properties
        )
        text = print_ir(prog, form=self.form) if plain else super().output_resulting_program(prog)
        if not self.args.json:
            return text
        self.printed.append(text)
        return ""


def execute_words(words: Sequence[str]) -> Outcome:
    """Run `irc opt` with these arguments."""
    main = OptMain(words)
    main.run()
    passes = [{"name": name, "seconds": seconds} for name, seconds in main.timing.seconds]
    return Outcome({"text": "// -----\n".join(main.printed), "passes": passes})
