/* When each queue ran which command, and the commands themselves. */

function timelineView(app, main) {
  const { model, state } = app, program = model.programs[state.program];
  main.classList.add("full");
  const wanted = new Set(model.commandsOf(state.program, state.selected));
  const queues = Object.entries(program.queues).filter(([, runs]) => runs.length);
  const canvas = new TimeCanvas(program.cycles, {
    paint: (c) => queues.forEach((queue, row) => paintQueue(c, model, program, queue, row, queues.length, wanted)),
    hit: (x, y, c) => runAt(c, queues, x, y),
    pick: ([command]) => app.choose(state.program, command),
    describe: ([command, start, cycles]) => runText(model, program, command, start, cycles),
  });
  const bar = make("div", { class: "bar" }, programPicker(app),
    make("span", { class: "soft" }, `${count(program.cycles)} cycles · ${duration(program.seconds)} · one call of entry “last”`),
    program.dropped ? make("span", { class: "warn" }, `${count(program.dropped)} later runs are left out`) : null,
    make("span", { class: "grow" }), legend(app, program.commands.filter((c) => c[COMMAND.runs]).map((c) => c[COMMAND.module])));
  canvas.element.style.flex = `0 0 ${queues.length * 46 + AXIS + 12}px`;
  const commands = new Lines((i) => commandLine(app, program, i, wanted));
  main.append(bar, canvas.element, make("div", { class: "bar" }, make("strong", {}, "Commands"),
    make("span", { class: "soft" }, `${count(program.commands.length)}, in order of the text`)), commands.element);
  commands.set(program.commands.map((_, i) => i));
  const first = state.command ?? [...wanted][0];
  if (first !== undefined) commands.show(first);
  state.canvas = canvas;
}

const ROW = { top: 8, height: 30, step: 46 };

function paintQueue(c, model, program, [queue, runs], row, rows, wanted) {
  const y = ROW.top + row * ROW.step;
  c.label(queue, y + 13, "text");
  c.label(percent(program.utilization[queue]), y + 27);
  const first = firstWhere(runs.length, (i) => runs[i][1] + runs[i][2] >= c.from);
  let edge = -1;
  for (let i = first; i < runs.length && runs[i][1] <= c.to; i++) {
    const [command, start, cycles] = runs[i], on = wanted.has(command);
    const right = c.x(start + cycles);
    if (right < edge && !on) continue;
    edge = Math.max(edge, right, c.x(start) + 1);
    const style = on ? c.ink("accent") : c.ink(`c${model.color(program.commands[command][COMMAND.module])}`);
    c.box(start, start + cycles, on ? y - 3 : y, on ? ROW.height + 6 : ROW.height, style, wanted.size && !on ? 0.3 : 1);
  }
}

function runAt(c, queues, x, y) {
  const row = Math.floor((y - ROW.top + 4) / ROW.step);
  if (row < 0 || row >= queues.length || x < GUTTER || y > c.height) return null;
  const runs = queues[row][1], near = (2 * (c.to - c.from)) / c.width, at = c.cycle(x);
  const first = firstWhere(runs.length, (i) => runs[i][1] + runs[i][2] >= at - near);
  return first < runs.length && runs[first][1] <= at + near ? runs[first] : null;
}

function runText(model, program, number, start, cycles) {
  const command = program.commands[number];
  return [
    command[COMMAND.text], command[COMMAND.module] || "added by the compiler",
    `cycles ${count(start)} to ${count(start + cycles)}: ${count(cycles)}${command[COMMAND.cycles] < cycles ? `, ${count(command[COMMAND.cycles])} on an idle machine` : ""}`,
    command[COMMAND.bytes] ? `${bytes(command[COMMAND.bytes])} from and to main memory` : "",
  ].filter((line) => line).join("\n");
}

function commandLine(app, program, i, wanted) {
  const command = program.commands[i], on = wanted.has(i) || app.state.command === i;
  const cost = command[COMMAND.runs] ? `${count(command[COMMAND.runs])} × ${count(command[COMMAND.cycles])}`.padStart(16) : "".padStart(16);
  return make("div", { class: `l has${on ? " on" : ""}`, click: () => app.choose(app.state.program, i), title: command[COMMAND.module] },
    make("b", {}, command[COMMAND.offset].toString(16)), make("span", { class: "soft" }, `${cost}  `), ...colored(command[COMMAND.text]));
}
