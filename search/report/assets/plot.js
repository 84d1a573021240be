// A chart of layers in SVG: thousands of dots are one path, so that filtering is fast enough for a moving slider.
const MARGIN = { top: 10, right: 16, bottom: 46 }, LINE = 15, LETTER = 6.8;
const DIAMOND = "M0 -7L7 0L0 7L-7 0Z", CROSS = "M-5 -5L5 5M5 -5L-5 5";

class Plot {
  // spec: x, y (words, unit, scale, zero, ticks), layers, height, square, label, facts(layer, point), pick(layer, point), walk
  constructor(host, spec) {
    Object.assign(this, { host, spec, limit: null, current: null });
    for (const layer of spec.layers) {
      for (const name of ["x", "y", "low", "high"]) {
        if (layer[name] && !(layer[name] instanceof Float64Array)) layer[name] = floats(layer[name]);
      }
    }
    const spoken = { role: "application", "aria-roledescription": "chart", "aria-label": spec.label };
    this.area = el("div", { class: "plot", tabindex: "0", ...spoken });
    host.append(this.area);
    this.legend();
    this.tip = new Tip(this.area);
    this.domains();
    drawnAtWidth(this.area, (width) => this.draw(width));
    this.listen();
  }

  legend() {
    const named = this.spec.layers.filter((layer) => layer.words);
    if (named.length < 2 && !this.spec.legend) return;
    this.host.append(el("ul", { class: "legend" }, named.map((layer) => el("li", {},
      svg("svg", { viewBox: "0 0 22 12", width: 22, height: 12, "aria-hidden": "true" }, this.key(layer)), layer.words))));
  }

  key(layer) {
    const style = `${layer.kind} ${layer.style}`;
    if (layer.kind === "dots") return svg("path", { d: "M11 6h0", class: style });
    if (layer.kind === "marks") return svg("path", { d: DIAMOND, class: style, transform: "translate(11 6) scale(.75)" });
    if (layer.kind === "crosses") return svg("path", { d: CROSS, class: style, transform: "translate(11 6) scale(.9)" });
    if (layer.kind === "area") return svg("rect", { x: 1, y: 1, width: 20, height: 10, class: style });
    if (layer.kind === "bars") return svg("path", { d: "M11 0V12", class: style });
    return svg("path", { d: "M1 6H21", class: style });
  }

  domains() {
    const { layers, x, y, square } = this.spec;
    const of = (...names) => extent(...layers.flatMap((layer) => names.map((name) => layer[name]).filter(Boolean)));
    const padded = ([low, high], axis) => {
      if (axis.zero) low = Math.min(0, low);
      const room = (high - low || Math.abs(high) || 1) * 0.05;
      return [axis.zero && low === 0 ? 0 : low - room, high + room];
    };
    this.xs = padded(of("x"), x);
    this.ys = padded(of("y", "low", "high"), y);
    if (square) this.xs = this.ys = [Math.min(this.xs[0], this.ys[0]), Math.max(this.xs[1], this.ys[1])];
  }

  draw(width) {
    const { x, y, layers } = this.spec;
    const named = (axis) => withUnit(axis.words, axis.unit && `(${axis.unit})`);
    const xName = linesOf(named(x), (width - 60) / LETTER);
    const below = MARGIN.bottom + LINE * (xName.length - 1);
    const height = (this.spec.square ? Math.min(Math.max(width, 220), 420) : this.spec.height || 260) + below - MARGIN.bottom;
    const inner = height - MARGIN.top - below;
    const yName = linesOf(named(y), inner / LETTER);
    const ticks = (axis, [low, high], count) => axis.ticks
      || niceTicks(low / axis.scale, high / axis.scale, Math.max(2, count)).map(([at, text]) => [at * axis.scale, text]);
    const yTicks = ticks(y, this.ys, inner / 40);
    const left = 30 + LINE * (yName.length - 1) + 7 * Math.max(...yTicks.map(([, text]) => text.length), 1);
    const wide = Math.max(width - left - MARGIN.right, 40);
    const xTicks = ticks(x, this.xs, wide / 78);
    const X = (value) => left + ((value - this.xs[0]) / (this.xs[1] - this.xs[0])) * wide;
    const Y = (value) => MARGIN.top + inner - ((value - this.ys[0]) / (this.ys[1] - this.ys[0])) * inner;
    Object.assign(this, { X, Y, width, height, left, wide, inner });
    const grid = svg("g", { class: "grid" },
      yTicks.map(([at, text]) => [
        svg("path", { d: `M${left} ${Y(at)}H${left + wide}` }),
        svg("text", { x: left - 7, y: Y(at) + 4, "text-anchor": "end" }, text)]),
      this.apart(xTicks, X).map(([at, text]) => [
        svg("path", { d: `M${X(at)} ${MARGIN.top}V${MARGIN.top + inner}` }),
        svg("text", { x: X(at), y: MARGIN.top + inner + 17, "text-anchor": "middle" }, text)]));
    // Centre a name on the plot, or on the whole chart if it is longer than the plot.
    const middle = Math.max(...xName.map((text) => text.length)) * LETTER > wide ? width / 2 : left + wide / 2;
    const spans = (lines, at) => lines.map((text, n) => svg("tspan", { x: at, dy: n ? LINE : 0 }, text));
    const names = svg("g", { class: "names" },
      svg("text", { y: height - 8 - LINE * (xName.length - 1), "text-anchor": "middle" }, spans(xName, middle)),
      svg("text", { transform: `translate(12 ${MARGIN.top + inner / 2}) rotate(-90)`, "text-anchor": "middle" }, spans(yName, 0)));
    this.beyond = svg("rect", { class: "beyond", y: MARGIN.top, height: inner, width: 0 });
    this.border = svg("path", { class: "border" });
    this.nodes = layers.map((layer) => svg("path", { class: `${layer.kind} ${layer.style}` }));
    this.ring = svg("circle", { class: "ring", r: 8, visibility: "hidden" });
    this.area.querySelector("svg")?.remove();
    this.area.prepend(svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
      grid, names, this.beyond, ...this.nodes, this.border, this.ring));
    layers.forEach((layer, index) => this.refresh(index));
    this.showLimit();
    this.tip.hide();
  }

  // If tick labels would overlap, show only every second, third, ... label.
  apart(ticks, X) {
    const widest = 7 * Math.max(...ticks.map(([, text]) => text.length), 1) + 8;
    const gap = ticks.length > 1 ? Math.abs(X(ticks[1][0]) - X(ticks[0][0])) : Infinity;
    const every = Math.max(1, Math.ceil(widest / gap));
    return ticks.filter((_, index) => index % every === 0);
  }

  refresh(index) {
    if (this.nodes) this.nodes[index].setAttribute("d", this.path(this.spec.layers[index]));
  }

  path(layer) {
    const { X, Y } = this, { x, y, low, high, keep } = layer;
    const known = (i) => x[i] === x[i] && (y[i] === y[i] || low) && (!keep || keep[i]);
    const at = (horizontal, vertical) => `${X(horizontal).toFixed(1)} ${Y(vertical).toFixed(1)}`;
    const parts = [];
    if (layer.kind === "dots") {
      // Dots on the same half pixel look alike, so only one is drawn.
      const seen = new Set();
      for (let i = 0; i < x.length; i++) {
        if (!known(i)) continue;
        const px = Math.round(2 * X(x[i])), py = Math.round(2 * Y(y[i])), place = px * 16384 + py;
        if (!seen.has(place)) { seen.add(place); parts.push(`M${px / 2} ${py / 2}h0`); }
      }
    } else if (layer.kind === "marks" || layer.kind === "crosses") {
      const shape = layer.kind === "marks" ? "m0 -7l7 7l-7 7l-7 -7z" : "m-5 -5l10 10m0 -10l-10 10";
      for (let i = 0; i < x.length; i++) if (known(i)) parts.push(`M${at(x[i], y[i])}${shape}`);
    } else if (layer.kind === "bars") {
      for (let i = 0; i < x.length; i++) if (known(i)) parts.push(`M${at(x[i], low[i])}L${at(x[i], high[i])}`);
    } else if (layer.kind === "area") {
      const there = [...x.keys()].filter(known);
      parts.push(...there.map((i, n) => `${n ? "L" : "M"}${at(x[i], high[i])}`));
      parts.push(...there.reverse().map((i) => `L${at(x[i], low[i])}`), "Z");
    } else {
      let pen = false, before = 0;
      for (let i = 0; i < x.length; i++) {
        if (!known(i)) { pen = false; continue; }
        // Steps: a budget between two networks gets the cheaper one.
        if (pen && layer.kind === "steps") parts.push(`L${at(x[i], before)}`);
        parts.push(`${pen ? "L" : "M"}${at(x[i], y[i])}`);
        pen = true;
        before = y[i];
      }
    }
    return parts.join("");
  }

  onScreen() {
    const { top, bottom } = this.area.getBoundingClientRect();
    return bottom > 0 && top < window.innerHeight;
  }

  // Shade the region beyond a budget on the horizontal axis.
  setLimit(value) { this.limit = value; this.showLimit(); }

  showLimit() {
    if (!this.nodes) return;
    const at = this.limit === null ? Infinity : this.X(this.limit), end = this.left + this.wide;
    const from = Math.min(Math.max(at, this.left), end);
    this.beyond.setAttribute("x", from);
    this.beyond.setAttribute("width", end - from);
    this.border.setAttribute("d", at >= this.left && at <= end ? `M${at} ${MARGIN.top}V${MARGIN.top + this.inner}` : "");
  }

  hoverable() { return this.spec.layers.filter((layer) => layer.hover !== false); }

  nearest(px, py) {
    let best = null, least = 32 ** 2;
    for (const layer of this.hoverable()) {
      for (let i = 0; i < layer.x.length; i++) {
        const distance = (this.X(layer.x[i]) - px) ** 2 + (this.Y(layer.y[i]) - py) ** 2;
        if (distance < least) { least = distance; best = { layer, i }; }
      }
    }
    return best;
  }

  facts({ layer, i }) {
    if (this.spec.facts) return this.spec.facts(layer, i);
    if (layer.texts) return layer.texts[i].split("\n");
    const { x, y } = this.spec;
    const said = (axis, value) => withUnit(figures(value / axis.scale, 4), axis.unit);
    return [[x.words, said(x, layer.x[i])], [layer.words || y.words, said(y, layer.y[i])]];
  }

  point(found, aloud) {
    this.current = found;
    this.ring.setAttribute("visibility", found ? "visible" : "hidden");
    if (!found) { this.tip.hide(); return; }
    const px = this.X(found.layer.x[found.i]), py = this.Y(found.layer.y[found.i]), lines = this.facts(found);
    this.ring.setAttribute("cx", px);
    this.ring.setAttribute("cy", py);
    this.tip.show(lines, px, py);
    if (aloud) announce(inWords(lines));
  }

  listen() {
    const place = (event) => {
      const box = this.area.getBoundingClientRect();
      return this.nearest(event.clientX - box.left, event.clientY - box.top);
    };
    this.area.addEventListener("pointermove", (event) => this.point(place(event)));
    this.area.addEventListener("pointerleave", () => this.point(null));
    this.area.addEventListener("blur", () => this.point(null));
    this.area.addEventListener("click", (event) => {
      const found = place(event);
      if (!found) return;
      this.point(found);
      this.spec.pick?.(found.layer, found.i);
    });
    this.area.addEventListener("keydown", (event) => this.press(event));
  }

  // Arrow keys move from point to point, from left to right.
  press(event) {
    if (event.key === "Escape") { this.point(null); return; }
    if ((event.key === "Enter" || event.key === " ") && this.current && this.spec.pick) {
      event.preventDefault();
      this.spec.pick(this.current.layer, this.current.i);
      return;
    }
    const moves = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const stops = this.stops();
    if (!stops.length) return;
    const here = this.current ? stops.findIndex(({ layer, i }) => layer === this.current.layer && i === this.current.i) : -1;
    const next = here < 0 ? (moves[event.key] === Infinity ? stops.length - 1 : 0) : here + moves[event.key];
    this.point(stops[Math.min(Math.max(next, 0), stops.length - 1)], true);
  }

  stops() {
    const all = this.hoverable().flatMap((layer) => (this.spec.walk ? this.spec.walk() : [...layer.x.keys()])
      .filter((i) => layer.x[i] === layer.x[i] && layer.y[i] === layer.y[i]).map((i) => ({ layer, i })));
    return all.sort((a, b) => a.layer.x[a.i] - b.layer.x[b.i] || a.layer.y[a.i] - b.layer.y[b.i]);
  }
}
