"""Sums of scaled indices in registers, checked by running the control commands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from npuc.passes.algorithms.registers import OutOfRegisters, Parameter, Registers, Sum


class Sequencer:
    """Runs set, add and mul."""

    def __init__(self) -> None:
        self.registers = [0] * 64
        self.commands = 0

    def emit(self, name: str, fields: dict[str, int]) -> None:
        read = {key: self.registers[fields.get(key, 0)] for key in ("rs", "rt")}
        imm = fields.get("imm", 0)
        results = {
            "set": imm,
            "add": read["rs"] + read["rt"] + imm,
            "mul": read["rs"] * imm,
            "param": 100 * fields.get("index", 0) + read["rs"],
        }
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


def test_parameters_are_looked_up_and_given_up_like_sums() -> None:
    """Twenty parameters in six registers: each is looked up when it is needed."""
    machine = Sequencer()
    registers = Registers(machine.emit, 1, 7)
    machine.emit("set", {"rd": registers.atom("row"), "imm": 4})
    for k in [*range(20), 19]:
        wanted = Sum.of(1, {Parameter(k, (("row", 5),)): 2})
        assert machine.registers[registers.value(wanted)] == 1 + 2 * (100 * k + 20)
        registers.release()


def test_registers_of_one_command_do_not_displace_each_other() -> None:
    machine = Sequencer()
    registers = Registers(machine.emit, 1, 5)
    machine.emit("set", {"rd": registers.atom("i"), "imm": 3})
    held = [registers.value(Sum.of(0, {"i": k})) for k in (2, 3, 4)]
    assert [machine.registers[register] for register in held] == [6, 9, 12]
    with pytest.raises(OutOfRegisters):
        registers.value(Sum.of(0, {"i": 5}))


def _check(registers: Registers, machine: Sequencer, wanted: Sum, values: dict[str, int]) -> None:
    expected = wanted.constant + sum(c * values[str(atom)] for atom, c in wanted.terms)
    assert machine.registers[registers.value(wanted)] == expected
    registers.release()


def test_a_known_sum_costs_nothing() -> None:
    machine = Sequencer()
    registers = Registers(machine.emit, 1, 64)
    registers.atom("i")
    wanted = Sum.of(0, {"i": 64})
    assert registers.value(wanted) == registers.value(wanted)
    assert machine.commands == 1
    assert registers.value(Sum.of(0, {"i": 1})) == 1


def test_too_many_atoms_are_reported() -> None:
    registers = Registers(Sequencer().emit, 1, 3)
    registers.atom("a")
    registers.atom("b")
    with pytest.raises(OutOfRegisters, match="more than 2 registers"):
        registers.atom("c")
