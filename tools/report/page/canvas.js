/* A canvas over time: wheel and drag move and zoom, one axis in cycles. */

const AXIS = 24;
const GUTTER = 74;

class TimeCanvas {
  /**
   * @param {number} cycles the whole length
   * @param {{paint, hit, pick, describe}} view paint(this) draws; hit(x, y) finds a thing; pick(thing); describe(thing)
   */
  constructor(cycles, view) {
    Object.assign(this, { cycles, view, from: 0, to: cycles, wanted: false });
    this.element = make("canvas", {
      wheel: (event) => this.wheel(event), pointerdown: (event) => this.down(event), pointermove: (event) => this.move(event),
      pointerup: (event) => this.up(event), pointerleave: tip.hide, dblclick: () => this.zoom(0, this.cycles),
    });
    this.context = this.element.getContext("2d");
    new ResizeObserver(() => this.paint()).observe(this.element);
  }

  get width() { return this.element.clientWidth - GUTTER - 12; }
  get height() { return this.element.clientHeight - AXIS; }
  x(cycle) { return GUTTER + ((cycle - this.from) / (this.to - this.from)) * this.width; }
  cycle(x) { return this.from + ((x - GUTTER) / this.width) * (this.to - this.from); }

  zoom(from, to) {
    const span = Math.max(8, Math.min(this.cycles, to - from));
    this.from = Math.max(0, Math.min(from, this.cycles - span));
    this.to = this.from + span;
    this.paint();
  }

  wheel(event) {
    event.preventDefault();
    const [span, at] = [this.to - this.from, this.cycle(event.offsetX)];
    const by = event.deltaX ? (event.deltaX * span) / this.width : 0;
    const factor = event.deltaX ? 1 : Math.exp(event.deltaY / 400);
    this.zoom(at - (at - this.from) * factor + by, at + (this.to - at) * factor + by);
  }

  down(event) {
    this.held = { x: event.offsetX, from: this.from, moved: false };
    this.element.setPointerCapture(event.pointerId);
  }

  move(event) {
    if (this.held) {
      const by = ((this.held.x - event.offsetX) * (this.to - this.from)) / this.width;
      this.held.moved ||= Math.abs(this.held.x - event.offsetX) > 3;
      if (this.held.moved) this.zoom(this.held.from + by, this.held.from + by + this.to - this.from);
      return;
    }
    const thing = this.view.hit(event.offsetX, event.offsetY, this);
    this.element.style.cursor = thing ? "pointer" : "default";
    if (thing) tip.show(event, this.view.describe(thing));
    else tip.hide();
  }

  up(event) {
    const thing = this.held && !this.held.moved && this.view.hit(event.offsetX, event.offsetY, this);
    this.held = null;
    if (thing) this.view.pick(thing);
  }

  /** Draws at the next frame, once however often it is asked for. */
  paint() {
    if (this.wanted) return;
    this.wanted = true;
    requestAnimationFrame(() => {
      this.wanted = false;
      const { clientWidth, clientHeight } = this.element;
      this.element.width = clientWidth * devicePixelRatio;
      this.element.height = clientHeight * devicePixelRatio;
      const style = getComputedStyle(document.documentElement);
      this.ink = (name) => style.getPropertyValue(`--${name}`).trim();
      this.context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
      this.context.clearRect(0, 0, clientWidth, clientHeight);
      this.context.font = `11px ${style.getPropertyValue("--sans")}`;
      this.axis();
      this.view.paint(this);
    });
  }

  axis() {
    const { context } = this, step = nice((this.to - this.from) / Math.max(2, this.width / 110));
    context.textAlign = "center";
    for (let cycle = Math.ceil(this.from / step) * step; cycle <= this.to; cycle += step) {
      context.fillStyle = this.ink("line");
      context.fillRect(this.x(cycle), 0, 1, this.height);
      context.fillStyle = this.ink("soft");
      context.fillText(count(cycle), this.x(cycle), this.height + 16);
    }
  }

  /** A label beside the plot. */
  label(text, y, color = "soft") {
    this.context.textAlign = "right";
    this.context.fillStyle = this.ink(color);
    this.context.fillText(text, GUTTER - 10, y);
  }

  /** A box between two cycles, at least a pixel wide. */
  box(from, to, y, height, style, alpha = 1) {
    const left = Math.max(GUTTER, this.x(from)), right = Math.min(GUTTER + this.width, this.x(to));
    if (right < left) return;
    this.context.globalAlpha = alpha;
    this.context.fillStyle = style;
    this.context.fillRect(left, y, Math.max(1, right - left - (right - left > 6 ? 1 : 0)), height);
    this.context.globalAlpha = 1;
  }
}

/** 1, 2 or 5 times a power of ten, at least x. */
function nice(x) {
  const power = 10 ** Math.floor(Math.log10(Math.max(x, 1)));
  return [1, 2, 5, 10].map((n) => n * power).find((step) => step >= x) ?? power * 10;
}

/** The first index at which test holds; it holds for all after. */
function firstWhere(length, test) {
  let low = 0, high = length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (test(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

function programPicker(app) {
  return make("select", { "aria-label": "program", change: (event) => app.go({ program: Number(event.target.value) }) },
    app.model.programs.map((p, i) => make("option", { value: i, selected: i === app.state.program }, p.name)));
}
