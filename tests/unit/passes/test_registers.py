"""Sums of scaled indices in registers, checked by running the control commands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from npuc.passes.algorithms.registers import OutOfRegisters, Registers, Sum


class Sequencer:
    """Runs set, add and mul."""

    def __init__(self) -> None:
        self.registers = [0] * 64
        self.commands = 0

    def emit(self, name: str, fields: dict[str, int]) -> None:
        read = {key: self.registers[fields.get(key, 0)] for key in ("rs", "rt")}
        imm = fields.get("imm", 0)
        results = {"set": imm, "add": read["rs"] + read["rt"] + imm, "mul": read["rs"] * imm}
        self.registers[fields["rd"]] = results[name]
        self.commands += 1


_sums = st.lists(
    st.builds(
        Sum.of,
        st.integers(-5, 5),
        st.dictionaries(st.sampled_from("abc"), st.integers(-3, 3)),
    ),
    max_size=20,
)


@given(_sums, _sums, st.integers(7, 64))
def test_registers_hold_the_sums(outer: list[Sum], inner: list[Sum], count: int) -> None:
    machine, values = Sequencer(), {"a": 7, "b": -11, "c": 1000}
    registers = Registers(machine.emit, 1, count)
    for name, value in values.items():
        machine.emit("set", {"rd": registers.atom(name), "imm": value})
    try:
        for wanted in outer[: count // 8]:
            _check(registers, machine, wanted, values)
        registers.enter()
        for wanted in inner:
            _check(registers, machine, wanted, values)
        registers.leave()
        for wanted in outer[: count // 8]:
            _check(registers, machine, wanted, values)
    except OutOfRegisters:
        assert count < 16


def _check(registers: Registers, machine: Sequencer, wanted: Sum, values: dict[str, int]) -> None:
    expected = wanted.constant + sum(c * values[str(atom)] for atom, c in wanted.terms)
    assert machine.registers[registers.value(wanted)] == expected


def test_a_known_sum_costs_nothing() -> None:
    machine = Sequencer()
    registers = Registers(machine.emit, 1, 64)
    registers.atom("i")
    wanted = Sum.of(0, {"i": 64})
    assert registers.value(wanted) == registers.value(wanted)
    assert machine.commands == 1
    assert registers.value(Sum.of(0, {"i": 1})) == registers.of("i")


def test_too_many_atoms_are_reported() -> None:
    registers = Registers(Sequencer().emit, 1, 3)
    registers.atom("a")
    registers.atom("b")
    with pytest.raises(OutOfRegisters, match="more than 2 registers"):
        registers.atom("c")
