/* Which bytes of an on-chip memory hold what, over a timed run; and how main memory is divided. */

const LIFE = { buffer: 0, address: 1, start: 2, end: 3 };
const BUFFER = { name: 0, memory: 1, bytes: 2, copies: 3, type: 4, origin: 5 };

function memoryView(app, main) {
  const { model, state } = app, program = model.programs[state.program];
  main.classList.add("full");
  const names = [...new Set(program.buffers.map((buffer) => buffer[BUFFER.memory]))];
  if (!names.length) return void main.append(make("div", { class: "bar" }, programPicker(app)),
    make("p", { class: "note", style: "padding:0 20px" }, "no buffers are known: the program is not the one that this compiler makes"));
  const name = names.includes(state.memory) ? state.memory : names[0];
  const { bytes: size, slices } = model.machine.memories[name];
  const lives = program.lives.filter((life) => program.buffers[life[LIFE.buffer]][BUFFER.memory] === name);
  const end = (life) => life[LIFE.address] + program.buffers[life[LIFE.buffer]][BUFFER.bytes];
  const top = Math.max(...lives.map(end));
  const modules = program.buffers.map((buffer) => model.modulesOf(model.sources(model.last - 1, buffer[BUFFER.origin]))[0]);
  const wanted = model.reached(model.last - 1, state.selected);
  const on = (life) => wanted.has(program.buffers[life[LIFE.buffer]][BUFFER.origin]);
  const y = (c, address) => 8 + (c.height - 16) * (1 - address / top);
  const canvas = new TimeCanvas(program.cycles, {
    paint: (c) => paintMemory(c, app, program, lives, modules, y, on, top),
    hit: (x, py, c) => lifeAt(c, lives, end, y, x, py),
    pick: (life) => app.select(model.sources(model.last - 1, program.buffers[life[LIFE.buffer]][BUFFER.origin])),
    describe: (life) => lifeText(program, life),
  });
  const picker = make("select", { "aria-label": "memory", change: (event) => app.go({ memory: event.target.value }) },
    names.map((other) => make("option", { selected: other === name }, other)));
  main.append(make("div", { class: "bar" }, programPicker(app), picker,
    make("span", { class: "soft" }, `${bytes(top)} of ${bytes(size)} used${slices > 1 ? ` in each of ${slices} slices` : ""} (${percent(top / size)}), ` +
      `at most ${bytes(peak(lives, program))} at once · ${count(lives.length)} lives of buffers`),
    program.dropped_lives ? make("span", { class: "warn" }, `${count(program.dropped_lives)} others are left out`) : null,
    make("span", { class: "grow" }), legend(app, lives.map((life) => modules[life[LIFE.buffer]]))),
    canvas.element, regionBar(model));
  state.canvas = canvas;
}

/** The most bytes that live at one time. */
function peak(lives, program) {
  const events = lives.flatMap((life) => {
    const size = program.buffers[life[LIFE.buffer]][BUFFER.bytes];
    return [[life[LIFE.start], size], [life[LIFE.end], -size]];
  }).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  let [now, most] = [0, 0];
  for (const [, by] of events) most = Math.max(most, (now += by));
  return most;
}

function paintMemory(c, app, program, lives, modules, y, on, top) {
  const step = 2 ** Math.ceil(Math.log2(Math.max(1, top / 8)));
  for (let address = 0; address <= top; address += step) c.label(bytes(address), y(c, address) + 4);
  const some = app.state.selected.size > 0;
  for (const life of lives) {
    const buffer = program.buffers[life[LIFE.buffer]];
    const from = y(c, life[LIFE.address] + buffer[BUFFER.bytes]), height = Math.max(1, y(c, life[LIFE.address]) - from);
    const style = on(life) ? c.ink("accent") : c.ink(`c${app.model.color(modules[life[LIFE.buffer]])}`);
    c.box(life[LIFE.start], life[LIFE.end], from, height - (height > 3 ? 1 : 0), style, on(life) ? 1 : some ? 0.25 : 0.75);
    const room = c.x(life[LIFE.end]) - Math.max(GUTTER, c.x(life[LIFE.start]));
    if (height > 13 && room > 60) {
      c.context.textAlign = "left";
      c.context.fillStyle = c.ink("text");
      c.context.fillText(short(buffer[BUFFER.name], Math.floor(room / 8)), Math.max(GUTTER, c.x(life[LIFE.start])) + 5, from + height / 2 + 4);
    }
  }
}

function lifeAt(c, lives, end, y, x, py) {
  const at = c.cycle(x), near = (1.5 * (c.to - c.from)) / c.width;
  if (x < GUTTER) return null;
  return lives.find((l) => l[LIFE.start] - near <= at && at <= l[LIFE.end] + near && y(c, end(l)) - 1 <= py && py <= y(c, l[LIFE.address]) + 1) ?? null;
}

function lifeText(program, life) {
  const buffer = program.buffers[life[LIFE.buffer]];
  const address = life[LIFE.address];
  return [
    `%${buffer[BUFFER.name]}: ${buffer[BUFFER.type]}`,
    `${count(address)} to ${count(address + buffer[BUFFER.bytes])}: ${bytes(buffer[BUFFER.bytes])}${buffer[BUFFER.copies] > 1 ? `, one of ${buffer[BUFFER.copies]} copies` : ""}`,
    `cycles ${count(life[LIFE.start])} to ${count(life[LIFE.end])}`,
  ].join("\n");
}

/** Main memory: weights, cache, inputs and outputs, scratch. */
function regionBar(model) {
  const used = Object.entries(model.regions).filter(([, region]) => region.bytes);
  const total = used.reduce((sum, [, region]) => sum + region.bytes, 0);
  return make("div", { class: "bar", style: "border-top:1px solid var(--line);border-bottom:0" }, make("strong", {}, "Main memory"),
    ...used.map(([name, region], i) => make("span", { class: "soft" }, share(region.bytes / total, `var(--c${i})`), `${name} ${bytes(region.bytes)}`)));
}
