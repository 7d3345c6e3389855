"""x"""

import argparse

from npuc.tools.command import Outcome


def add_arguments(parser: argparse.ArgumentParser) -> None: ...
def execute(arguments: argparse.Namespace) -> Outcome: ...
