"""Whom a copy may wait for before it starts: the ranks of its chip, or those of all chips."""

CHIP, SYSTEM = MEETINGS = ("chip", "system")
