/* What was compiled, what each pass cost and did, and how fast the programs are. */

function overview(app, main) {
  const { model } = app, { about, machine } = model;
  main.append(
    facts([
      ["model", `${about.source} (${about.architecture})`], ["target", about.target], ["type", about.dtype],
      ["weights", bytes(model.regions.weights.bytes)], ["cache", bytes(model.regions.cache.bytes)],
      ["lowered in", duration(about.seconds)], ["npuc", about.npuc],
    ]),
    about.same ? "" : make("p", { class: "note warn" },
      `This compiler (${about.now}) lowers the artifact's IR to other programs than the artifact holds (compiled by ${about.npuc}): ` +
      "the passes have changed since. The IR shown is what they do now; commands and times are the artifact's, and are not linked to it."),
    make("h2", {}, "Programs"), programTable(app),
    make("h2", {}, "Passes"), passTable(app));
}

function facts(pairs) {
  return make("dl", { class: "facts" }, pairs.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function share(part, color = "var(--c0)") {
  return make("span", { class: "share" }, make("i", { style: `width:${100 * Math.min(1, part)}%;background:${color}` }));
}

/** A share as a bar and in percent. */
const shared = (part, color) => [share(part, color), make("span", { class: "part" }, percent(part))];

function programTable(app) {
  const queues = Object.keys(app.model.programs[0].utilization);
  const head = ["program", "cycles", "roofline", "of roofline", "time", "tokens/s", "moved", "must move", ...queues.map((q) => `${q} busy`)];
  const rows = app.model.programs.map((p, i) => make("tr", { class: "pick", click: () => app.go({ tab: "timeline", program: i }) },
    make("td", { class: "mono" }, p.name), ...[count(p.cycles), count(p.roofline_cycles)].map(number),
    make("td", { class: "num" }, percent(p.roofline_cycles / p.cycles)),
    ...[duration(p.seconds), count(p.tokens_per_second), bytes(p.dram_bytes), bytes(p.least_dram_bytes)].map(number),
    ...queues.map((q) => make("td", { class: "num" }, shared(p.utilization[q])))));
  return table(head, rows);
}

const number = (text) => make("td", { class: "num" }, text);

function table(head, rows) {
  return make("table", {}, make("thead", {}, make("tr", {}, head.map((name, i) => make("th", { class: i ? "num" : "" }, name)))), make("tbody", {}, rows));
}

function passTable(app) {
  const { stages } = app.model;
  const most = Math.max(...stages.map((stage) => stage.seconds));
  const rows = stages.map((stage, i) => {
    const phase = stage.phase === stages[i - 1]?.phase ? "" : stage.phase;
    const [gone, added] = i ? lineChanges(app.model, i) : [0, 0];
    return make("tr", { class: "pick", click: () => app.go({ tab: "ir", stage: i, diff: i > 0 }) },
      make("td", { class: "soft" }, phase), make("td", { class: "mono" }, i ? stage.name : "(start)"),
      make("td", {}, share(stage.seconds / most)), number(i ? duration(stage.seconds) : ""),
      number(count(stage.operations)),
      make("td", { class: "num plus" }, added ? `+${count(added)}` : ""), make("td", { class: "num minus" }, gone ? `−${count(gone)}` : ""));
  });
  return make("table", { class: "passes" },
    make("thead", {}, make("tr", {}, ["phase", "pass", "", "time", "operations", "lines", ""].map((name, i) => make("th", { class: i > 2 ? "num" : "" }, name)))),
    make("tbody", {}, rows));
}

/** How many lines a pass removed and added. */
function lineChanges(model, i) {
  const all = allSteps(model, i);
  return [all.filter((item) => item.sign === "-").length, all.filter((item) => item.sign === "+").length];
}
