/* The page: tabs, search, the selection and what it is at every level; all of its state is in the address. */

const TABS = { overview: overview, ir: irView, graph: graphView, timeline: timelineView, memory: memoryView, roofline: rooflineView, weights: weightsView, drift: driftView };
const NAMES = { overview: "Overview", ir: "IR", graph: "Graph", timeline: "Timeline", memory: "Memory", roofline: "Roofline", weights: "Weights", drift: "Drift" };
const NUMBERS = ["stage", "program", "graph"];

class App {
  constructor(model) {
    this.model = model;
    this.state = { tab: "overview", stage: 0, program: 0, graph: 0, phase: "optimize", memory: "", diff: false, selected: new Set(), command: null };
    this.search = new Search(this);
    addEventListener("hashchange", () => this.read());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.state.canvas?.paint());
    this.read();
  }

  /** Changes the state and shows it. */
  go(changes) {
    if (changes.program !== undefined && changes.program !== this.state.program) this.state.command = null;
    Object.assign(this.state, changes);
    const { tab, stage, program, graph, phase, memory, diff, selected } = this.state;
    const words = new URLSearchParams({ tab, stage, program, graph, phase, ...(memory && { memory }), ...(diff && { diff: 1 }), ...(selected.size && { select: [...selected].join(".") }) });
    if (location.hash !== `#${words}`) history.pushState(null, "", `#${words}`);
    this.show();
  }

  read() {
    const words = new URLSearchParams(location.hash.slice(1));
    for (const name of NUMBERS) if (words.has(name)) this.state[name] = Number(words.get(name)) || 0;
    for (const name of ["tab", "phase", "memory"]) if (words.has(name)) this.state[name] = words.get(name);
    this.state.diff = words.has("diff");
    this.state.selected = new Set((words.get("select") ?? "").split(".").filter((word) => word).map(Number));
    this.state.stage = Math.min(this.state.stage, this.model.last);
    this.state.program = Math.min(this.state.program, this.model.programs.length - 1);
    if (!TABS[this.state.tab]) this.state.tab = "overview";
    this.show();
  }

  /** Selects operations by their origins; none clears the selection. */
  select(origins, changes = {}) { this.go({ command: null, ...changes, selected: new Set(origins) }); }

  selectModule(module, changes = {}) { this.select(this.model.modules.get(module) ?? [], changes); }

  selectsModule(module) {
    const origins = this.model.modules.get(module);
    return origins && this.state.selected.size > 0 && [...origins].every((origin) => this.state.selected.has(origin));
  }

  /** Selects a command and the operation that it came from. */
  choose(program, number, changes = {}) {
    const origin = this.model.programs[program].commands[number][COMMAND.origin];
    this.select(origin ? this.model.sources(this.model.last, origin) : [], { program, command: number, ...changes });
  }

  show() {
    tip.hide();
    document.getElementById("tabs").replaceChildren(...Object.entries(NAMES).map(([tab, name]) =>
      make("a", { href: `#tab=${tab}`, "aria-current": tab === this.state.tab, click: (event) => { event.preventDefault(); this.go({ tab }); } }, name)));
    const main = make("main", { id: "view" });
    const list = document.querySelector(".list"), kept = list?.scrollTop ?? 0;
    document.getElementById("view").replaceWith(main);
    TABS[this.state.tab](this, main);
    if (list && main.querySelector(".list")) main.querySelector(".list").scrollTop = kept;
    trace(this);
  }
}

/** The selection at every level, beside the view. */
function trace(app) {
  const { model, state } = app, side = document.getElementById("trace");
  side.hidden = !state.selected.size && state.command === null;
  if (side.hidden) return void side.replaceChildren();
  const modules = model.modulesOf(state.selected);
  side.replaceChildren(
    make("button", { class: "close", title: "select nothing", click: () => app.select([]) }, "×"),
    make("p", { class: "title" }, modules.length ? modules.slice(0, 3).join(", ") + (modules.length > 3 ? ", …" : "") : "added by the compiler"),
    state.command === null ? "" : commandFacts(app),
    ...model.milestones().map((stage) => levelRows(app, stage)),
    ...model.programs.map((_, program) => commandRows(app, program)));
}

const SHOWN = 12;

function section(title, note, rows) {
  const more = rows.length > SHOWN ? [make("p", { class: "soft" }, `and ${count(rows.length - SHOWN)} more`)] : [];
  return make("section", {}, make("h2", {}, title, make("small", {}, note)), rows.slice(0, SHOWN).map((row) => row()), more);
}

function levelRows(app, stage) {
  const { model, state } = app, rows = model.rowsOf(stage, state.selected);
  if (!rows.length) return "";
  return section(model.stages[stage].phase, rows.length > 1 ? `${rows.length} operations` : "", rows.map((row) => () =>
    make("button", { class: "row", title: model.text(stage, row).trim(), click: () => app.go({ tab: "ir", stage, diff: false }) }, ...colored(model.text(stage, row).trim()))));
}

function commandRows(app, program) {
  const { model, state } = app, { name, commands, cycles } = model.programs[program];
  const found = model.commandsOf(program, state.selected);
  if (!found.length) return "";
  const total = found.reduce((sum, i) => sum + commands[i][COMMAND.total], 0);
  return section(name, `${found.length} commands, busy ${count(total)} cycles (${percent(total / cycles)})`, found.map((i) => () =>
    make("button", { class: "row", title: commands[i][COMMAND.text], click: () => app.go({ tab: "timeline", program, command: i }) },
      make("span", { class: "soft" }, `${commands[i][COMMAND.offset].toString(16)} `), commands[i][COMMAND.text])));
}

function commandFacts(app) {
  const { model, state } = app, program = model.programs[state.program], command = program.commands[state.command];
  return make("section", {}, make("h2", {}, `${program.name} @ 0x${command[COMMAND.offset].toString(16)}`), make("p", { class: "mono", style: "overflow-wrap:anywhere" }, command[COMMAND.text]),
    facts([["operation", command[COMMAND.operation] || "–"], ["queue", command[COMMAND.queue]], ["cycles", count(command[COMMAND.cycles])], ["runs", count(command[COMMAND.runs])], ["busy", count(command[COMMAND.total])], ["moved a run", bytes(command[COMMAND.bytes])]]));
}

/** Finds operations, modules, weights and commands by any words in them. */
class Search {
  constructor(app) {
    this.app = app;
    this.input = document.querySelector("#search input");
    this.list = document.getElementById("hits");
    this.input.addEventListener("input", () => this.update());
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.list.firstElementChild?.click();
      if (event.key === "Escape") this.close();
    });
    addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.target.matches("input, select")) return;
      event.preventDefault();
      this.input.focus();
    });
    document.addEventListener("click", (event) => { if (!event.target.closest("#search")) this.close(); });
  }

  entries() {
    const { app } = this, { model } = app;
    const ir = () => (["ir", "graph", "timeline", "memory"].includes(app.state.tab) ? {} : { tab: "ir", diff: false });
    this.known ??= [
      ...[...model.modules.keys()].map((module) => ["module", module, () => app.selectModule(module, ir())]),
      ...[...model.operations].map(([origin, text]) => ["operation", text, () => app.select([origin], ir())]),
      ...model.weights.map((weight) => ["weight", weight.name, () => app.select([weight.origin], { tab: "weights" })]),
      ...model.programs.flatMap((program, p) => program.commands.map((command, i) => [
        "command", `${program.name}@0x${command[COMMAND.offset].toString(16)} ${command[COMMAND.text]} ${command[COMMAND.module]}`, () => app.choose(p, i, { tab: "timeline" })])),
    ];
    return this.known;
  }

  update() {
    const words = this.input.value.toLowerCase().split(/\s+/).filter((word) => word);
    const found = [];
    if (words.length)
      for (const entry of this.entries()) {
        const text = entry[1].toLowerCase();
        if (words.every((word) => text.includes(word)) && found.push(entry) >= 40) break;
      }
    this.list.hidden = !words.length;
    this.list.replaceChildren(...found.map(([kind, text, act], i) => make("li", { class: i ? "" : "first", click: () => { this.close(); act(); } },
      make("span", { class: "kind" }, kind), make("span", { class: "mono" }, short(text, 110)))));
    if (words.length && !found.length) this.list.append(make("li", {}, "nothing has these words"));
  }

  close() { this.list.hidden = true; }
}

/** Resolves to the page once it shows the report. */
const report = readFacts().then((facts) => {
  const app = new App(new Model(facts));
  document.body.dataset.ready = Math.round(performance.now());
  return app;
});
report.catch((error) => { document.getElementById("view").textContent = `the report cannot be shown: ${error.message}`; });
