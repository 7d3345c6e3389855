"""The simulator: executes programs command by command, for values, hazards and time."""

from npuc.runtime.simulator.hazards import Hazard
from npuc.runtime.simulator.program import LoadedProgram
from npuc.runtime.simulator.simulator import RunResult, Simulator
from npuc.runtime.simulator.timeline import Deadlock, Interval, Timeline
from npuc.runtime.simulator.trace import chrome_trace, write_chrome_trace

__all__ = [
    "Deadlock",
    "Hazard",
    "Interval",
    "LoadedProgram",
    "RunResult",
    "Simulator",
    "Timeline",
    "chrome_trace",
    "write_chrome_trace",
]
