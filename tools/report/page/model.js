/* The facts, and the maps that lead from one level to another. */

const COMMAND = { offset: 0, text: 1, queue: 2, operation: 3, module: 4, cycles: 5, bytes: 6, runs: 7, total: 8, origin: 9 };
const OTHER = 9;

class Model {
  constructor(facts) {
    Object.assign(this, facts);
    this.follow();
    for (const stage of this.stages) stage.rows = new Map(stage.origins);
    this.operations = new Map(this.stages[0].origins.map(([row, origin]) => [origin, this.text(0, row).trim()]));
    this.modules = new Map();
    for (const [origin, text] of this.operations) this.note(text.match(/module = "([^"]+)"/)?.[1], origin);
    this.last = this.stages.length - 1;
    this.palette();
  }

  note(module, origin) {
    if (!module) return;
    if (!this.modules.has(module)) this.modules.set(module, new Set());
    this.modules.get(module).add(origin);
  }

  /** For each stage a map from every origin to the one that stands for it there. */
  follow() {
    let standing = new Map(this.stages[0].origins.map(([, origin]) => [origin, origin]));
    for (const stage of this.stages) {
      const taken = new Map(stage.absorbed);
      if (taken.size) standing = new Map([...standing].map(([origin, now]) => [origin, taken.get(now) ?? now]));
      stage.standing = standing;
    }
  }

  text(stage, row) { return this.lines[this.stages[stage].lines[row]]; }

  /** The origins that one in a later stage stands for. */
  sources(stage, origin) {
    const found = [];
    for (const [source, now] of this.stages[stage].standing) if (now === origin) found.push(source);
    return found.length ? found : [origin];
  }

  /** What stands for some origins in a stage. */
  reached(stage, origins) {
    const standing = this.stages[stage].standing;
    return new Set([...origins].map((origin) => standing.get(origin) ?? origin));
  }

  rowsOf(stage, origins) {
    const wanted = this.reached(stage, origins);
    return this.stages[stage].origins.filter(([, origin]) => wanted.has(origin)).map(([row]) => row);
  }

  /** The modules of some operations; those that a pass merged into others of them do not count. */
  modulesOf(origins) {
    const standing = this.stages[this.last].standing;
    const lasting = [...origins].filter((origin) => standing.get(origin) === origin);
    const meant = lasting.length ? lasting : [...origins];
    return [...this.modules].filter(([, own]) => meant.some((origin) => own.has(origin))).map(([module]) => module);
  }

  /** The operations of a module and of those in it; the number of a layer means all layers of its kind. */
  within(module) {
    const general = module.replace(/\.\d+(?=\.|$)/g, ".{}");
    const own = [...this.modules].filter(([name]) => name === general || name.startsWith(`${general}.`));
    return own.flatMap(([, origins]) => [...origins]);
  }

  /** Numbers of the commands of a program that come from some origins. */
  commandsOf(program, origins) {
    const wanted = this.reached(this.last, origins);
    const found = [];
    this.programs[program].commands.forEach((command, i) => { if (wanted.has(command[COMMAND.origin])) found.push(i); });
    return found;
  }

  /** The stages at which phases end, the start first. */
  milestones() {
    return this.stages.map((stage, i) => i).filter((i) => this.stages[i].phase !== this.stages[i + 1]?.phase);
  }

  /** The stage whose operations a phase's graphs show. */
  stageOf(phase) {
    const order = this.about.phases;
    let found = 0;
    this.stages.forEach((stage, i) => { if (order.indexOf(stage.phase) <= order.indexOf(phase)) found = i; });
    return found;
  }

  /** What part of a model a module is: the component within its layer, or its last one. */
  part(module) {
    if (!module) return "compiler";
    const [, within] = module.split(".{}.");
    return within ? within.split(".")[0] : module.split(".").at(-1).replace("{}", "layer");
  }

  /** Colours for the parts that take longest; the rest share one. */
  palette() {
    const spent = new Map();
    for (const [module] of this.modules) spent.set(this.part(module), 0);
    for (const command of this.programs.flatMap((program) => program.commands)) {
      const part = this.part(command[COMMAND.module]);
      spent.set(part, (spent.get(part) ?? 0) + command[COMMAND.total]);
    }
    spent.delete("compiler");
    const parts = [...spent].sort((a, b) => b[1] - a[1]).map(([part]) => part);
    this.colors = new Map(parts.map((part, i) => [part, Math.min(i, OTHER)]));
  }

  color(module) { return this.colors.get(this.part(module)) ?? OTHER; }

  /** An operation in a few words. */
  label(origin) {
    const text = this.operations.get(origin) ?? `line ${origin}`;
    return text.length > 90 ? `${text.slice(0, 89)}…` : text;
  }
}

/** The facts, from the page itself. */
async function readFacts() {
  const packed = Uint8Array.from(atob(document.getElementById("data").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}
