/* The IR after each pass: the text, or what the pass changed in it. */

const LINE = 20;
const CONTEXT = 3;

/** A list of equally high lines of which only the visible ones are elements. */
class Lines {
  constructor(make) {
    this.make = make;
    this.inner = document.createElement("div");
    this.inner.className = "lines";
    this.element = fill(document.createElement("div"), { class: "code", scroll: () => this.render() }, [this.inner]);
    new ResizeObserver(() => this.render()).observe(this.element);
  }

  set(items) {
    this.items = items;
    this.inner.style.height = `${items.length * LINE}px`;
    this.render();
  }

  render() {
    const first = Math.max(0, Math.floor(this.element.scrollTop / LINE) - 20);
    const end = Math.min(this.items?.length ?? 0, first + Math.ceil(this.element.clientHeight / LINE) + 40);
    const rows = [];
    for (let i = first; i < end; i++) {
      const row = this.make(this.items[i]);
      row.style.top = `${i * LINE}px`;
      rows.push(row);
    }
    this.inner.replaceChildren(...rows);
  }

  show(index) { this.element.scrollTop = Math.max(0, index * LINE - this.element.clientHeight / 3); }
}

function irView(app, main) {
  const { model, state } = app;
  main.classList.add("full");
  const lines = new Lines((item) => irLine(app, item));
  const mode = make("button", { "aria-pressed": String(state.diff), click: () => app.go({ diff: !state.diff }) }, "only changes");
  const stage = model.stages[state.stage];
  const name = make("strong", {}, stage.name);
  const step = (by) => app.go({ stage: Math.max(0, Math.min(model.last, state.stage + by)) });
  main.append(
    make("div", { class: "split" },
      passList(app),
      make("div", { class: "pane" },
        make("div", { class: "bar one" }, name, make("span", { class: "soft fit" }, stageSummary(model, state.stage)), make("span", { class: "grow" }),
          make("button", { click: () => step(-1), title: "the pass before" }, "←"), make("button", { click: () => step(1), title: "the next pass" }, "→"), mode),
        lines.element)));
  const items = state.diff && state.stage ? changesOnly(allSteps(model, state.stage)) : allSteps(model, state.stage);
  lines.set(items);
  const wanted = new Set(model.rowsOf(state.stage, state.selected));
  const first = items.findIndex((item) => item.sign !== "-" && wanted.has(item.row));
  if (first >= 0) lines.show(first);
}

function stageSummary(model, i) {
  const stage = model.stages[i];
  const changes = Object.entries(stage.changes).map(([kind, by]) => `${by > 0 ? "+" : "−"}${Math.abs(by)} ${kind}`);
  const shown = changes.slice(0, 5).join(", ") + (changes.length > 5 ? ", …" : "");
  return `${stage.phase} · ${count(stage.operations)} operations${shown ? ` · ${shown}` : ""}`;
}

/** Every line of a stage, with those that its pass removed. */
function allSteps(model, i) {
  const stage = model.stages[i];
  if (!i) return stage.lines.map((line, row) => ({ sign: " ", stage: 0, row }));
  stage.steps ??= steps(model.stages[i - 1].lines, stage.lines);
  return stage.steps.map(([sign, a, b]) => (sign === "-" ? { sign, stage: i - 1, row: a } : { sign, stage: i, row: b }));
}

/** The changed lines with a few around them. */
function changesOnly(all) {
  const near = new Uint8Array(all.length);
  all.forEach((item, i) => { if (item.sign !== " ") near.fill(1, Math.max(0, i - CONTEXT), i + CONTEXT + 1); });
  const found = [];
  for (let i = 0; i < all.length; i++) {
    if (near[i]) found.push(all[i]);
    else if (found.at(-1)?.folded) found.at(-1).folded++;
    else found.push({ folded: 1 });
  }
  return found;
}

function irLine(app, item) {
  const { model, state } = app;
  if (item.folded) return make("div", { class: "l fold" }, make("b", {}, "⋯"), `${count(item.folded)} lines unchanged`);
  const origin = model.stages[item.stage].rows.get(item.row);
  const on = origin !== undefined && model.reached(item.stage, state.selected).has(origin);
  const kind = { "+": " add", "-": " gone", " ": "" }[item.sign];
  const select = () => app.select(model.sources(item.stage, origin));
  return make("div", { class: `l${kind}${origin === undefined ? "" : " has"}${on ? " on" : ""}`, click: origin === undefined ? false : select },
    make("b", {}, item.sign === "-" ? "−" : String(item.row + 1)), ...colored(model.text(item.stage, item.row)));
}

/** Every pass by phase; those in which the selection occurs say how often. */
function passList(app) {
  const { model, state } = app;
  const list = make("div", { class: "list" });
  let phase = "";
  model.stages.forEach((stage, i) => {
    if (stage.phase !== phase) list.append(make("h3", {}, (phase = stage.phase)));
    const hits = state.selected.size ? model.rowsOf(i, state.selected).length : 0;
    const note = hits ? String(hits) : i ? duration(stage.seconds) : "";
    list.append(make("button", { class: hits ? "hit" : "", "aria-current": i === state.stage, click: () => app.go({ stage: i }) },
      stage.name, make("small", {}, note)));
  });
  return list;
}
