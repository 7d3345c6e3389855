/* The data flow of a function: rows by distance from the inputs, within a row by where the inputs stand. */

const BOX = { width: 176, height: 38, across: 18, down: 26 };
const NODE = { name: 0, operation: 1, module: 2, type: 3, origin: 4, inputs: 5, weights: 6, row: 7 };

function graphView(app, main) {
  const { model, state } = app;
  main.classList.add("full");
  const phase = model.graphs[state.phase] ? state.phase : Object.keys(model.graphs)[0];
  if (!phase) return void main.append(make("p", { class: "note" }, "the lowering started below the graph level"));
  const graphs = model.graphs[phase];
  const at = Math.min(state.graph, graphs.length - 1);
  const list = make("div", { class: "list" });
  graphs.forEach((graph, i) => list.append(make("button", { "aria-current": i === at, click: () => app.go({ graph: i }) },
    graph.name, make("small", {}, layerText(graph.layers) || `${graph.nodes.length} nodes`))));
  main.append(make("div", { class: "split" }, list, make("div", { class: "pane" },
    make("div", { class: "bar" },
      make("select", { "aria-label": "phase", change: (event) => app.go({ phase: event.target.value, graph: 0 }) },
        Object.keys(model.graphs).map((name) => make("option", { selected: name === phase }, name))),
      make("strong", {}, graphs[at].name), make("span", { class: "soft" }, layerText(graphs[at].layers)),
      make("span", { class: "grow" }), legend(app, graphs[at].nodes.map((node) => node[NODE.module]))),
    make("div", { class: "scroll" }, drawing(app, phase, graphs[at])))));
  main.querySelector(".node.on")?.scrollIntoView({ block: "center", inline: "center" });
}

/** layers 0–15, or 0, 2, 4 */
function layerText(layers) {
  if (!layers.length) return "";
  const run = layers.every((layer, i) => layer === layers[0] + i);
  if (layers.length === 1) return `layer ${layers[0]}`;
  return run ? `layers ${layers[0]}–${layers.at(-1)}` : `layers ${layers.slice(0, 8).join(", ")}${layers.length > 8 ? ", …" : ""}`;
}

function legend(app, modules) {
  const parts = new Map(modules.filter((m) => m).map((m) => [app.model.part(m), app.model.color(m)]));
  return make("span", { class: "legend" }, [...parts].map(([part, color]) => make("span", {}, make("i", { style: `background:var(--c${color})` }), part)));
}

/** The place of each node: rows top down, in a row below the inputs; what has none stands to the right. */
function placed(nodes) {
  const rows = [];
  nodes.forEach((node, i) => (rows[node[NODE.row]] ??= []).push(i));
  const x = new Float64Array(nodes.length), y = new Float64Array(nodes.length);
  const step = BOX.width + BOX.across;
  rows.forEach((row, r) => {
    const wish = new Map(row.map((i) => {
      const inputs = nodes[i][NODE.inputs];
      return [i, inputs.length ? inputs.reduce((sum, j) => sum + x[j], 0) / inputs.length : Infinity];
    }));
    row.sort((p, q) => (wish.get(p) === wish.get(q) ? p - q : wish.get(p) - wish.get(q)));
    const bound = row.filter((i) => wish.get(i) < Infinity);
    const middle = bound.reduce((sum, i) => sum + wish.get(i), 0) / Math.max(1, bound.length);
    row.forEach((i, k) => {
      x[i] = middle + (k - (Math.max(1, bound.length) - 1) / 2) * step;
      y[i] = r * (BOX.height + BOX.down);
    });
  });
  const left = Math.min(...x, 0);
  return nodes.map((_, i) => [x[i] - left + 24, y[i] + 20]);
}

function drawing(app, phase, { nodes }) {
  const { model, state } = app;
  const stage = model.stageOf(phase), wanted = model.reached(stage, state.selected), places = placed(nodes);
  const on = (node) => wanted.has(node[NODE.origin]);
  const edges = nodes.flatMap((node, i) => node[NODE.inputs].map((j) => edge(places[j], places[i], on(node) || on(nodes[j]))));
  const boxes = nodes.map((node, i) => box(app, stage, node, places[i], on(node)));
  const width = Math.max(...places.map(([x]) => x)) + BOX.width + 24, height = Math.max(...places.map(([, y]) => y)) + BOX.height + 24;
  return draw("svg", { width, height, viewBox: `0 0 ${width} ${height}` }, edges, boxes);
}

function edge([x0, y0], [x1, y1], on) {
  const [a, b, c, d] = [x0 + BOX.width / 2, y0 + BOX.height, x1 + BOX.width / 2, y1];
  const bend = Math.min(60, (d - b) / 2);
  return draw("path", { class: `edge${on ? " on" : ""}`, d: `M${a},${b} C${a},${b + bend} ${c},${d - bend} ${c},${d}` });
}

function box(app, stage, node, [x, y], on) {
  const kind = node[NODE.operation].replace("graph.", ""), outer = kind === "argument" || kind === "results";
  const about = [node[NODE.operation], node[NODE.module], node[NODE.type], ...node[NODE.weights]].filter((text) => text).join("\n");
  const title = outer ? node[NODE.name] || kind : kind;
  return draw("g", {
    class: `node${on ? " on" : ""}`, transform: `translate(${x},${y})`, tabindex: node[NODE.origin] ? 0 : undefined,
    click: () => node[NODE.origin] && app.select(app.model.sources(stage, node[NODE.origin])),
    mousemove: (event) => tip.show(event, about), mouseleave: tip.hide,
  },
    draw("rect", { width: BOX.width, height: BOX.height }),
    outer ? null : draw("rect", { width: 4, height: BOX.height, style: `fill:var(--c${app.model.color(node[NODE.module])});stroke:none;rx:2` }),
    draw("text", { class: "op", x: 12, y: 15 }, short(title, 24)),
    draw("text", { class: "soft", x: 12, y: 30 }, short(node[NODE.type], 26)));
}

const short = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
