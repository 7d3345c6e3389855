"""The page that `irc report` writes, in a browser: it opens by itself, and everything leads everywhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser
from npuc.tools import irc

TABS = ("Overview", "IR", "Graph", "Timeline", "Memory", "Roofline", "Weights", "Drift")


@pytest.fixture(scope="module")
def page(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    flags = ["-t", "rngd", "--prefill-buckets", "1x4", "--decode-buckets", "1x16", "--no-weights"]
    assert irc.main(["compile", str(demo_model), "-o", str(folder / "out"), *flags]) == 0
    assert irc.main(["report", str(folder / "out")]) == 0
    return folder / "out.report.html"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(session: Browser, page: Path) -> Browser:
    """The report, freshly opened."""
    session.problems.clear()
    session.requests.clear()
    session.open(page)
    session.requests.remove("about:blank") if "about:blank" in session.requests else None
    return session


def tab(browser: Browser, name: str) -> None:
    browser.click("#tabs a", TABS.index(name))


def test_opens_without_network_and_every_view_shows_something(browser: Browser, page: Path) -> None:
    assert browser.requests == [f"file://{page}"]
    assert browser.texts("#tabs a") == list(TABS)
    for name in TABS:
        tab(browser, name)
        assert browser.texts("#tabs a[aria-current]") == [name]
        assert len(browser.texts("#view")[0]) > 40
    assert browser.problems == []
    assert browser.requests == [f"file://{page}"]


def test_search_leads_to_an_operation_at_every_level(browser: Browser) -> None:
    browser.type("#search input", "linear down_proj")
    assert browser.texts("aside .title") == ["model.layers.{}.mlp.down_proj"]
    titles = browser.texts("aside h2")
    levels = "import optimize specialize layout tile schedule prefill_1x4 decode_1x16".split()
    for level in levels:
        assert any(title.startswith(level) for title in titles), level
    assert browser.texts("#tabs a[aria-current]") == ["IR"]
    (line,) = browser.texts(".code .l.on")
    assert "graph.linear" in line
    assert "mlp.down_proj" in line


def test_from_an_operation_to_its_commands_and_back(browser: Browser) -> None:
    browser.type("#search input", "graph.linear q_proj")
    rows = browser.texts("aside .row")
    first = next(i for i, row in enumerate(rows) if re.match("[0-9a-f]+ dma dma ", row))
    browser.click("aside .row", first)
    assert browser.texts("#tabs a[aria-current]") == ["Timeline"]
    chosen = browser.texts(".code .l.on")
    assert any(rows[first].split(" ", 1)[1] in line for line in chosen)
    browser.click('.code .l[title$="o_proj"]')
    assert browser.texts("aside .title") == ["model.layers.{}.self_attn.o_proj"]
    assert any("graph.linear" in row and "%o_proj" in row for row in browser.texts("aside .row"))


def test_changes_of_a_pass_are_those_between_its_texts(browser: Browser) -> None:
    wrong = browser.evaluate("""report.then(({ model }) => model.stages.map((stage, i) => {
      if (!i) return true;
      const before = model.stages[i - 1].lines, found = steps(before, stage.lines);
      const old = found.filter(([sign]) => sign !== "+").map(([, a]) => before[a]);
      const now = found.filter(([sign]) => sign !== "-").map(([, , b]) => stage.lines[b]);
      return String(old) === String(before) && String(now) === String(stage.lines)
        && found.every(([sign, a, b]) => sign !== " " || before[a] === stage.lines[b]);
    }).filter((same) => !same).length)""")
    assert wrong == 0
    tab(browser, "IR")
    names = browser.texts(".list button")
    browser.click(".list button", next(i for i, name in enumerate(names) if name.startswith("raise-gated")))
    browser.click(".bar button[aria-pressed]")
    added, gone = browser.texts(".code .l.add"), browser.texts(".code .l.gone")
    assert sum("graph.gated" in line for line in added) == 1
    assert any("graph.mul" in line for line in gone)


def test_graph_nodes_select(browser: Browser) -> None:
    tab(browser, "Graph")
    nodes = browser.texts("svg .node .op")
    browser.click("svg .node .op", nodes.index("attention"))
    assert browser.texts("svg .node.on")[0].startswith("attention")
    assert any(" tu main " in row for row in browser.texts("aside .row"))


LONGEST = """report.then(({ state, model }) => {
  const canvas = state.canvas, box = canvas.element.getBoundingClientRect();
  const [[, runs]] = Object.entries(model.programs[state.program].queues).filter(([, r]) => r.length);
  const [command, start, cycles] = runs.reduce((a, b) => (b[2] > a[2] ? b : a));
  const offset = model.programs[state.program].commands[command][0].toString(16);
  return [box.x + canvas.x(start + cycles / 2), box.y + ROW.top + ROW.height / 2, offset];
})"""
LARGEST = """report.then(({ state, model }) => {
  const canvas = state.canvas, box = canvas.element.getBoundingClientRect();
  const { buffers, lives } = model.programs[state.program];
  const area = ([buffer, , start, end]) => buffers[buffer][2] * (end - start);
  const own = lives.filter(([buffer]) => buffers[buffer][1] === buffers[0][1]);
  const [buffer, address, start, end] = own.reduce((a, b) => (area(b) > area(a) ? b : a));
  const top = Math.max(...own.map(([b, at]) => at + buffers[b][2]));
  const y = 8 + (canvas.height - 16) * (1 - (address + buffers[buffer][2] / 2) / top);
  return [box.x + canvas.x((start + end) / 2), box.y + y, buffers[buffer][0]];
})"""


def test_timeline_and_memory_answer_where_they_are_pointed_at(browser: Browser) -> None:
    tab(browser, "Timeline")
    x, y, offset = browser.evaluate(LONGEST)
    browser.click_at(x, y)
    assert browser.texts("aside h2")[0] == f"prefill_1x4 @ 0x{offset}"
    tab(browser, "Memory")
    x, y, name = browser.evaluate(LARGEST)
    browser.click_at(x, y)
    assert browser.texts("#tip")[0].startswith(f"%{name}: memref<")
    assert any(row.startswith(f"%{name} = tile.alloc") for row in browser.texts("aside .row"))


def test_weights_sort_and_select(browser: Browser) -> None:
    tab(browser, "Weights")
    head = browser.texts("th")
    browser.click("th", head.index("bytes"))
    first = browser.texts("tbody tr:first-child td")
    assert first[0].startswith("model.layers.{}.mlp")
    browser.click("tbody tr:first-child td")
    assert "graph.weight" in browser.texts("aside .row")[0]
