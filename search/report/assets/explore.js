// Input size of a network, and its precision if the front has several.
const imageWords = page.precisions ? "image, precision" : "image";
const imageOf = (i) => `${drawn.resolutions[i]} px${page.precisions ? `, ${page.precisions[i]}` : ""}`;

// The front with its budgets: every change filters all charts, the table and the drawing at once.
class Explorer {
  constructor() {
    const { networks, dominated, costs } = page;
    this.costs = costs;
    this.known = page.known ? ` (${page.known})` : ""; // whether accuracies are predicted or measured
    this.accuracyWords = page.known ? `${page.metric}, ${page.known}` : page.metric;
    this.count = networks.accuracy.length;
    this.columns = Object.fromEntries(Object.entries(networks).map(([name, values]) => [name, floats(values)]));
    this.dominated = Object.fromEntries(Object.entries(dominated).map(([name, values]) => [name, floats(values)]));
    this.accuracy = this.columns.accuracy;
    // Best first: by accuracy, then by position in the file, which is ascending in the first cost.
    this.order = [...this.accuracy.keys()].sort((a, b) => this.accuracy[b] - this.accuracy[a] || a - b);
    this.limits = costs.map(() => null);
    this.expected = false;
    this.picked = null;
    this.keep = new Uint8Array(this.count).fill(1);
    this.out = new Uint8Array(this.count);
    this.plots = [];
    this.makeInputs();
    this.makePlots();
    this.update();
  }

  column(name, i) { return this.columns[name] ? this.columns[name][i] : NaN; }

  // The value that a limit is compared with: the upper end of the interval if there is one, so that the device keeps the budget.
  judged(cost) {
    const middle = this.columns[cost.key], high = cost.high && !this.expected ? this.columns[cost.high] : null;
    return high ? middle.map((value, i) => (high[i] === high[i] ? high[i] : value)) : middle;
  }

  makeInputs() {
    const host = document.getElementById("limits");
    this.inputs = this.costs.map((cost, index) => {
      const [low, high] = extent(this.judged(cost)), least = low * 0.97;
      const id = `limit-${index}`, span = (high - least) || 1;
      const slider = el("input", { type: "range", min: 0, max: 1000, id: `${id}-slider`, "aria-label": `Budget of ${cost.words}` });
      const number = el("input", { type: "number", id, min: 0, step: "any", placeholder: "no limit", "data-key": cost.key });
      slider.value = 1000;
      slider.addEventListener("input", () => {
        const at = Number(slider.value);
        // Rounded up to four digits: the compared limit is the displayed one.
        const value = at >= 1000 ? null : roundUp((least + (span * at) / 1000) / cost.scale);
        number.value = value === null ? "" : String(value);
        this.setLimit(index, value === null ? null : value * cost.scale);
      });
      number.addEventListener("input", () => {
        const value = number.valueAsNumber;
        const wrong = number.validity.badInput || (number.value !== "" && !(value > 0));
        number.setAttribute("aria-invalid", String(wrong));
        const at = Math.round((1000 * (value * cost.scale - least)) / span);
        slider.value = number.value === "" || wrong ? 1000 : Math.min(1000, Math.max(0, at));
        this.setLimit(index, number.value === "" || wrong ? null : value * cost.scale);
      });
      host.append(el("div", { class: "limit" }, el("label", { for: id }, cost.words),
        el("span", { class: "value" }, number, el("span", { class: "unit" }, cost.unit)), slider));
      return { slider, number };
    });
    const ends = this.costs.some((cost) => cost.high);
    if (ends) {
      const box = el("input", { type: "checkbox", id: "expected" });
      box.addEventListener("change", () => { this.expected = box.checked; this.picked = null; this.update(); });
      const words = "Compare latencies as expected, not the upper end of their interval";
      host.append(el("label", { class: "check", for: "expected" }, box, words));
    }
    document.getElementById("budgets").addEventListener("reset", (event) => {
      event.preventDefault();
      this.inputs.forEach(({ slider, number }) => { slider.value = 1000; number.value = ""; number.removeAttribute("aria-invalid"); });
      this.limits.fill(null);
      this.picked = null;
      this.update();
    });
    document.getElementById("budgets").addEventListener("submit", (event) => event.preventDefault());
  }

  setLimit(index, value) {
    this.limits[index] = value;
    this.picked = null;
    this.update();
  }

  makePlots() {
    const y = { words: this.accuracyWords, unit: "%", scale: 0.01 }, none = floats([]);
    const at = (rows, values) => rows.map((i) => values[i]);
    const make = (host, cost, height, legend) => {
      const x = this.columns[cost.key], line = this.staircase(x);
      const beaten = { x: this.dominated[cost.key] || none, y: this.dominated.accuracy || none };
      const best = { x: at(line, x), y: at(line, this.accuracy) };
      const layers = [
        { kind: "dots", style: "seen", words: "evaluated, but beaten", hover: false, ...beaten },
        { kind: "dots", style: "outside", words: "beyond the budget", hover: false, x, y: this.accuracy, keep: this.out },
        { kind: "dots", style: "inside", words: "within the budget", x, y: this.accuracy, keep: this.keep },
        { kind: "steps", style: "frontier", words: `best for each ${cost.words}`, hover: false, ...best },
        { kind: "marks", style: "others", hover: false, words: "next four", x: none, y: none },
        { kind: "marks", style: "best", hover: false, words: "best within the budget", x: none, y: none },
        { kind: "marks", style: "chosen", hover: false, words: "picked", x: none, y: none },
      ];
      layers.forEach((layer) => { if (!legend) layer.words = ""; });
      const plot = new Plot(host, {
        x: cost, y, layers, height, legend,
        label: `Accuracy against ${cost.words}. Arrow keys move along the networks that are best for it, Enter picks one.`,
        facts: (layer, i) => this.facts(i),
        pick: (layer, i) => this.pick(i),
        walk: () => line,
      });
      this.plots.push({ plot, cost, index: this.costs.indexOf(cost) });
    };
    make(document.getElementById("hero"), this.costs[0], 430, true);
    for (const host of document.querySelectorAll("[data-cost]")) make(host, this.costs[Number(host.dataset.cost)], 240, false);
  }

  staircase(x) {
    let best = -Infinity;
    return [...x.keys()].filter((i) => x[i] === x[i]).sort((a, b) => x[a] - x[b] || this.accuracy[b] - this.accuracy[a])
      .filter((i) => { const better = this.accuracy[i] > best; if (better) best = this.accuracy[i]; return better; });
  }

  interval(i, cost) {
    const low = this.column(cost.low, i), high = this.column(cost.high, i);
    return low < high ? `${figures(low / cost.scale)} .. ${figures(high / cost.scale)}` : "";
  }

  accuracyInterval(i) {
    const low = this.column("accuracy_low", i), high = this.column("accuracy_high", i);
    return low < high ? `${(100 * low).toFixed(1)} .. ${(100 * high).toFixed(1)}` : "";
  }

  facts(i) {
    const bracketed = (text, range) => (range ? `${text} (${range})` : text);
    return [[this.accuracyWords, bracketed(percent(this.accuracy[i]), this.accuracyInterval(i))],
      ...this.costs.map((cost) => [cost.words, bracketed(quantity(this.columns[cost.key][i], cost), this.interval(i, cost))]),
      [imageWords, imageOf(i)], ["blocks a stage", depths(i)]];
  }

  pick(i) {
    this.picked = i;
    this.update();
    announce(`Picked: ${inWords(this.facts(i))}`);
  }

  update() {
    const judged = this.costs.map((cost) => this.judged(cost));
    const within = this.limits.map((limit, c) => (limit === null ? null : judged[c].map((value) => value <= limit)));
    for (let i = 0; i < this.count; i++) {
      this.keep[i] = within.every((kept) => kept === null || kept[i]) ? 1 : 0;
      this.out[i] = 1 - this.keep[i];
    }
    this.top = this.order.filter((i) => this.keep[i]);
    this.kept = this.top.length;
    this.top = this.top.slice(0, 5);
    // Visible charts follow the slider at once; the others are updated when it rests.
    const away = this.plots.filter((each) => !(each.plot.onScreen() && this.redraw(each)));
    clearTimeout(this.resting);
    this.resting = setTimeout(() => away.forEach((each) => this.redraw(each)), 80);
    const said = (c) => (this.limits[c] === null ? "no limit" : quantity(this.limits[c], this.costs[c]));
    this.inputs.forEach(({ slider }, c) => slider.setAttribute("aria-valuetext", said(c)));
    this.answer(judged);
    this.table();
    this.drawPicked();
  }

  redraw({ plot, cost, index }) {
    const at = (rows, name) => Float64Array.from(rows, (i) => this.columns[name][i]);
    const groups = [this.top.slice(1), this.top.slice(0, 1), this.picked === null ? [] : [this.picked]];
    groups.forEach((rows, n) => Object.assign(plot.spec.layers[4 + n], { x: at(rows, cost.key), y: at(rows, "accuracy") }));
    [1, 2, 4, 5, 6].forEach((layer) => plot.refresh(layer));
    plot.setLimit(this.limits[index]);
    return true;
  }

  answer(judged) {
    const host = document.getElementById("answer");
    host.classList.toggle("impossible", !this.kept);
    if (!this.kept) { host.textContent = this.impossible(judged); return; }
    const best = this.top[0];
    const kept = `${this.kept.toLocaleString("en")} of ${this.count.toLocaleString("en")} networks keep the budget`;
    const first = quantity(this.columns[this.costs[0].key][best], this.costs[0]);
    host.textContent = `${kept}. The best has ${percent(this.accuracy[best])}${this.known} at ${first}.`;
  }

  // The limits that are infeasible alone, with feasible values; otherwise a feasible value of each limit if the others stay.
  impossible(judged) {
    const set = [...this.costs.keys()].filter((c) => this.limits[c] !== null);
    const least = (c, rows) => rows.reduce((low, i) => Math.min(low, judged[c][i]), Infinity);
    const all = [...this.accuracy.keys()];
    const alone = set.filter((c) => least(c, all) > this.limits[c]);
    const name = (c) => this.costs[c].words + (this.costs[c].high && !this.expected ? " (upper end of its interval)" : "");
    const words = (c, value) => `${name(c)} of ${withUnit(String(roundUp(value / this.costs[c].scale)), this.costs[c].unit)}`;
    if (alone.length) {
      const needed = alone.map((c) => words(c, least(c, all))).join(" and a ");
      return `No network of this front keeps that budget: the least is a ${needed}. Raise it to that.`;
    }
    const others = (c) => all.filter((i) => set.every((other) => other === c || judged[other][i] <= this.limits[other]));
    const together = set.map((c) => [c, least(c, others(c))]).filter(([, value]) => value < Infinity);
    if (!together.length) return "No network of this front keeps all of these limits at once, nor all but one of them. Raise several.";
    const needed = together.map(([c, value]) => words(c, value)).join(", or a ");
    return `No network of this front keeps these limits at once. With the others as they are, the least is a ${needed}. Raise one to that.`;
  }

  table() {
    const heads = ["", this.accuracyWords, ...this.costs.map((cost) => cost.words), imageWords, "blocks a stage", ""];
    const cell = (text, range) => el("td", {}, text, range ? el("small", {}, range) : null);
    const row = (i, place) => {
      const button = el("button", { type: "button", "aria-pressed": String(this.shown() === i), "data-row": i }, "Draw");
      button.addEventListener("click", () => { this.pick(i); document.querySelector(`#best [data-row="${i}"]`)?.focus(); });
      return el("tr", { "data-row": i, class: this.shown() === i ? "shown" : null }, el("th", { scope: "row" }, String(place + 1)),
        cell(percent(this.accuracy[i]), this.accuracyInterval(i)),
        this.costs.map((cost) => cell(quantity(this.columns[cost.key][i], cost), this.interval(i, cost))),
        cell(imageOf(i)), cell(depths(i)), el("td", {}, button));
    };
    document.getElementById("best").replaceChildren(
      el("caption", {}, this.kept ? "The best within the budget" : "No network keeps the budget"),
      el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, this.top.map(row)));
  }

  shown() { return this.picked ?? this.top[0] ?? null; }

  drawPicked() {
    const i = this.shown(), host = document.getElementById("picked");
    host.hidden = i === null;
    if (i === null || (host.dataset.network === String(i) && host.dataset.how === String(this.picked))) return;
    host.dataset.network = i;
    host.dataset.how = this.picked;
    const heading = this.picked === null ? "The best network within the budget" : "The network you picked";
    const save = el("button", { type: "button" }, "Save its arch as JSON");
    save.addEventListener("click", () => saveArch(i));
    host.replaceChildren(
      el("div", { class: "row" }, el("h3", {}, heading), save),
      el("p", { class: "note" }, "With the saved file, this command makes the network from its supernet; RUN is the folder of the training:"),
      el("pre", { tabindex: 0 }, page.next),
      el("div", { class: "beside" }, el("div", {}, drawingLegend(), drawNetwork(i)),
        el("dl", { class: "values" },
          this.facts(i).map(([name, words]) => el("div", {}, el("dt", {}, name), el("dd", {}, words))))),
      blockTable(i));
  }
}

function roundUp(value) {
  if (!(value > 0)) return 0;
  const scale = 10 ** (Math.floor(Math.log10(value)) - 3);
  return Number((Math.ceil(value / scale - 1e-9) * scale).toPrecision(12));
}

function saveArch(network) {
  const file = new Blob([`${JSON.stringify(archOf(network), null, 2)}\n`], { type: "application/json" });
  const link = el("a", { href: URL.createObjectURL(file), download: "arch.json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function drawChosen(explorer) {
  const [first, ...rest] = page.costs;
  const others = (i) => rest.map((cost) => `${quantity(explorer.columns[cost.key][i], cost)} ${cost.words.replace("latency ", "")}`);
  document.getElementById("legend").append(drawingLegend());
  document.getElementById("chosen").append(...page.chosen.map((i) => el("article", { class: "card" },
    el("h3", {}, `${percent(explorer.accuracy[i])}${explorer.known} at ${quantity(explorer.columns[first.key][i], first)}`),
    el("p", { class: "note" }, inWords([...others(i), imageOf(i)])),
    drawNetwork(i), blockTable(i))));
}
