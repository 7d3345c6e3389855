/* Programs and modules against what the machine can move and multiply. */

const PLOT = { width: 860, height: 460, left: 66, bottom: 44, top: 30, right: 20 };

function rooflineView(app, main) {
  const { model, state } = app, { machine } = model, program = model.programs[state.program];
  const points = program.modules.filter((m) => m.macs && m.bytes).map((m) => ({
    name: m.module, x: m.macs / m.bytes, y: m.macs / m.cycles, size: m.cycles / program.cycles, color: model.color(m.module),
    text: `${m.module}\n${count(m.macs)} multiply-accumulates, ${bytes(m.bytes)}\nbusy ${count(m.cycles)} cycles (${percent(m.cycles / program.cycles)})`,
  }));
  points.push({
    name: program.name, x: program.macs / program.least_dram_bytes, y: program.macs / program.cycles, size: 1, color: OTHER, whole: true,
    text: `${program.name}, the whole call\n${count(program.macs)} multiply-accumulates, ${bytes(program.least_dram_bytes)} must move\n${count(program.cycles)} cycles`,
  });
  main.append(
    make("div", { class: "bar", style: "margin:-20px -20px 16px" }, programPicker(app),
      make("span", { class: "soft" }, `one core: ${count(machine.bandwidth)} bytes a cycle, ${count(machine.macs)} ${model.about.dtype} multiply-accumulates a cycle`)),
    make("p", { class: "note" }, "A module's work, padding included, over the time in which its busiest queue was at it; the ring is the whole call, without padding. " +
      "Under the slope main memory bounds, under the level the contraction engine."),
    chart(app, points), make("h2", {}, "Modules"), moduleTable(app, program));
}

function chart(app, points) {
  const { machine } = app.model, ridge = machine.macs / machine.bandwidth;
  const xs = [...points.map((p) => p.x), ridge], ys = [...points.map((p) => p.y), machine.macs];
  const [x0, x1] = [decade(Math.min(...xs), -1), decade(Math.max(...xs), 1)];
  const [y0, y1] = [decade(Math.min(...ys), -1), decade(Math.max(...ys), 1)];
  const x = (v) => PLOT.left + (Math.log10(v / x0) / Math.log10(x1 / x0)) * (PLOT.width - PLOT.left - PLOT.right);
  const y = (v) => PLOT.height - PLOT.bottom - (Math.log10(v / y0) / Math.log10(y1 / y0)) * (PLOT.height - PLOT.bottom - PLOT.top);
  const roof = [[x0, x0 * machine.bandwidth], [ridge, machine.macs], [x1, machine.macs]];
  const start = Math.max(x0, y0 / machine.bandwidth);
  roof[0] = [start, start * machine.bandwidth];
  return draw("svg", { width: PLOT.width, height: PLOT.height, role: "img" },
    ticks(x0, x1).map((v) => [draw("line", { class: "axis", x1: x(v), x2: x(v), y1: PLOT.top, y2: PLOT.height - PLOT.bottom }),
      draw("text", { class: "soft", x: x(v), y: PLOT.height - PLOT.bottom + 16, "text-anchor": "middle" }, power(v))]),
    ticks(y0, y1).map((v) => [draw("line", { class: "axis", x1: PLOT.left, x2: PLOT.width - PLOT.right, y1: y(v), y2: y(v) }),
      draw("text", { class: "soft", x: PLOT.left - 8, y: y(v) + 4, "text-anchor": "end" }, power(v))]),
    draw("text", { class: "soft", x: PLOT.width - PLOT.right, y: PLOT.height - 6, "text-anchor": "end" }, "multiply-accumulates per byte"),
    draw("text", { class: "soft", x: 0, y: 10 }, "per cycle"),
    draw("polyline", { class: "roof", points: roof.map(([a, b]) => `${x(a)},${y(b)}`).join(" ") }),
    points.map((p) => dot(app, p, x(p.x), y(p.y))));
}

function dot(app, point, x, y) {
  const radius = point.whole ? 9 : 4 + 8 * Math.sqrt(Math.min(1, point.size));
  const style = point.whole ? "fill:none;stroke:var(--text);stroke-width:2" : `fill:var(--c${point.color})`;
  return draw("circle", {
    class: `dot${app.selectsModule(point.name) ? " on" : ""}`, cx: x, cy: y, r: radius, style, "data-name": point.name,
    click: () => !point.whole && app.selectModule(point.name), mousemove: (event) => tip.show(event, point.text), mouseleave: tip.hide,
  });
}

const decade = (v, way) => 10 ** (way < 0 ? Math.floor(Math.log10(v)) : Math.ceil(Math.log10(v) + 1e-9));
const power = (v) => (v >= 1 && v < 1e5 ? count(v) : v >= 0.001 && v < 1 ? String(v) : v.toExponential(0));

function ticks(low, high) {
  const found = [];
  for (let v = low; v <= high * 1.001; v *= 10) found.push(Number(v.toPrecision(3)));
  return found;
}

function moduleTable(app, program) {
  const rows = [...program.modules].sort((a, b) => b.cycles - a.cycles).map((m) =>
    make("tr", { class: `pick${app.selectsModule(m.module) ? " on" : ""}`, click: () => app.selectModule(m.module) },
      make("td", { class: "mono" }, m.module), number(count(m.commands)), number(count(m.cycles)),
      make("td", { class: "num" }, shared(m.cycles / program.cycles, `var(--c${app.model.color(m.module)})`)),
      number(m.macs ? count(m.macs) : ""), number(bytes(m.bytes)), number(m.macs ? count(m.macs / m.cycles) : "")));
  return table(["module", "commands", "busy cycles", "of the call", "multiply-accumulates", "moved", "per cycle"], rows);
}
