"""The driver with a fault planted: `python tests/faults/irc.py FAULT bisect …`; alone it lists the faults."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from npuc.tools import irc
from planting import planted
from table import BY_NAME


def main(words: list[str]) -> int:
    if not words or words[0] not in BY_NAME:
        print("\n".join(f"{fault.name:<24}in {fault.step}" for fault in BY_NAME.values()))
        return 0 if not words else 2
    with planted(BY_NAME[words[0]]):
        return irc.main(words[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
