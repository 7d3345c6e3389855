/* Weights with how they are stored and quantized; numeric drift by layer. */

const WEIGHT_COLUMNS = [
  ["weight", (w) => w.name, "mono"], ["layers", (w) => w.layers, "num"], ["shape", (w) => w.shape.join(" × "), "num"], ["checkpoint", (w) => w.stored.join(", ")],
  ["type", (w) => (w.quantization ? w.quantization.split(" : ")[1].split(",")[0] : w.type)], ["quantization", (w) => w.quantization || "none"], ["packed as", (w) => `${w.packed_shape.join(" × ")} ${w.packed_type}`, "num"],
  ["padding", (w) => w.padding, "num", percent], ["bytes", (w) => w.bytes, "num", bytes], ["address", (w) => w.offset, "num", (n) => `0x${n.toString(16)}`],
  ["layer stride", (w) => w.stride, "num", (n) => (n ? bytes(n) : "")],
];

function weightsView(app, main) {
  const { model, state } = app;
  const total = model.weights.reduce((sum, w) => sum + w.bytes, 0);
  const padding = model.weights.reduce((sum, w) => sum + w.bytes * w.padding, 0);
  main.append(
    make("p", { class: "note" }, `${model.weights.length} packed weights, ${bytes(total)} in main memory, ${percent(padding / total)} of it padding.`),
    sortable(WEIGHT_COLUMNS, model.weights, state, (w) => app.select([w.origin]), (w) => state.selected.has(w.origin)));
}

/** A table that a click on a column's name sorts. */
function sortable(columns, rows, state, pick, on) {
  const view = make("table", {}), [column, way] = state.sort ?? [-1, 1];
  const ordered = column < 0 ? rows : [...rows].sort((a, b) => {
    const [x, y] = [columns[column][1](a), columns[column][1](b)];
    return way * (typeof x === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true }));
  });
  view.append(
    make("thead", {}, make("tr", {}, columns.map(([name, , kind], i) => make("th", {
      "data-sort": i, class: kind === "num" ? "num" : "", "aria-sort": i === column ? (way > 0 ? "ascending" : "descending") : undefined,
      click: () => { state.sort = [i, i === column ? -way : kind === "num" ? -1 : 1]; view.replaceWith(sortable(columns, rows, state, pick, on)); },
    }, name)))),
    make("tbody", {}, ordered.map((row) => make("tr", { class: `pick${on(row) ? " on" : ""}`, click: () => pick(row) },
      columns.map(([, value, kind, format]) => make("td", { class: kind ?? "" }, (format ?? String)(value(row))))))));
  return view;
}

function driftView(app, main) {
  const { drift } = app.model;
  if (!drift) return void main.append(make("p", { class: "note" },
    "Not measured. The weights' values are needed for it: give the checkpoint, "), make("pre", { class: "mono" }, `irc report ${app.model.about.name} --against MODEL`));
  main.append(make("p", { class: "note" }, `What the IR computes after each pass, compared with the IR at the start (${drift.calls.join(", ")}).`),
    make("h2", {}, "Logits after each pass"),
    table(["pass", "largest error", "of the largest logit", "cosine"], drift.passes.map((p) => make("tr", {},
      make("td", { class: "mono" }, p.name), p.error ? make("td", { class: "soft", colspan: 3 }, p.error) : [number(scientific(p.max_abs_error)), number(scientific(p.max_rel_error)), number(p.cosine === null ? "" : p.cosine.toFixed(8))]))),
    make("h2", {}, "Largest relative error of a layer's values after each phase"), layerTable(app, drift));
}

const scientific = (v) => (v === null ? "not finite" : v ? v.toExponential(2) : "0");

function layerTable(app, drift) {
  const most = Math.max(...drift.layers.flatMap((l) => l.errors), 1e-12);
  const shade = (v) => (v ? Math.max(0.06, 0.75 * (1 + Math.log10(v / most) / 8)) : 0);
  return table(["module", ...drift.phases], drift.layers.map((l) => make("tr", { class: "pick", click: () => app.select(app.model.within(l.module)) },
    make("td", { class: "mono" }, l.module), l.errors.map((v) => make("td", {
      class: "num", style: `background:color-mix(in srgb, var(--c1) ${Math.round(100 * Math.max(0, shade(v)))}%, transparent)` }, v === null ? "" : scientific(v))))));
}
