// Block diagrams of networks: one row per stage, one box per block.
const drawn = page.drawings;
const ROW = 46, BOX = 30, LEFT = 96;

const blocksOf = (network) => drawn.networks[network].map((index) => drawn.blocks[index]);
const stageOf = (block) => (block.name.startsWith("stages.") ? Number(block.name.split(".")[1]) : null);
const kernelClass = (block) => (block.kernel ? `k${Math.min(block.kernel, 9)}` : "k0");

function depths(network) {
  const counts = drawn.slots.map(() => 0);
  for (const block of blocksOf(network)) if (stageOf(block) !== null) counts[stageOf(block)]++;
  return counts.join("-");
}

function archOf(network) {
  const stages = drawn.slots.map(() => []);
  for (const block of blocksOf(network)) if (stageOf(block) !== null) stages[stageOf(block)].push(block.genes);
  return { space: drawn.space, resolution: drawn.resolutions[network], ...drawn.genes[network], stages };
}

function blockLabel(block) {
  const genes = Object.entries(block.genes).map(([name, value]) => `${name[0]}${value}`);
  if (genes.length) return genes.join(" ");
  const square = `${block.kernel}×${block.kernel}`;
  const words = {
    conv: square, "inverted residual": `k${block.kernel}`, "residual conv": `+${square}`,
    "max pool": "pool", "feature mix": "mix", classifier: "fc",
  };
  return words[block.kind] || block.kind;
}

function blockFacts(block, total) {
  const genes = Object.entries(block.genes).map(([name, value]) => `${name} ${value}`);
  const inner = block.mid === block.out ? "" : ` (${block.mid} inside)`;
  return [
    `${block.name}: ${block.kind}`,
    ["channels", `${block.in} → ${block.out}${inner}`],
    ["pixels", `${block.from} → ${block.to}`],
    ...(block.kernel ? [["kernel, stride", `${block.kernel}×${block.kernel}, ${block.stride}`]] : []),
    ...(genes.length ? [["genes", genes.join(", ")]] : []),
    ...(block.words.length ? [["with", block.words.join(", ")]] : []),
    ["MACs", `${short(block.macs)} (${(100 * block.macs / total).toFixed(1)} %)`],
    ["parameters", short(block.params)],
  ];
}

function short(count) {
  const [scale, unit] = [[1e9, " G"], [1e6, " M"], [1e3, " K"]].find(([size]) => count >= size) || [1, ""];
  return `${figures(count / scale)}${unit}`;
}

// Rows of blocks: those before the stages, each stage, and those after.
function rowsOf(network) {
  const rows = [];
  for (const block of blocksOf(network)) {
    const stage = stageOf(block), last = rows[rows.length - 1];
    const words = stage === null ? (rows.some((row) => row.stage !== null) ? "head" : "stem") : `stage ${stage + 1}`;
    if (last && last.words === words) last.blocks.push(block);
    else rows.push({ words, stage, blocks: [block] });
  }
  return rows;
}

function drawNetwork(network) {
  const rows = rowsOf(network), blocks = blocksOf(network);
  const total = blocks.reduce((sum, block) => sum + block.macs, 0);
  const host = el("div", { class: "drawing", "data-network": network });
  const tip = new Tip(host);
  const columns = Math.max(...drawn.slots, ...rows.map((row) => row.blocks.length));
  const most = Math.max(...drawn.blocks.filter((block) => stageOf(block) !== null).map((block) => block.mid));
  drawnAtWidth(host, (width) => {
    const pitch = Math.min((width - LEFT) / columns, 130), height = rows.length * ROW;
    const words = `${blocks.length} blocks for ${drawn.resolutions[network]} pixels, depths ${depths(network)}; a table follows.`;
    const picture = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words });
    rows.forEach((row, line) => {
      const y = line * ROW + 4, first = row.blocks[0], last = row.blocks[row.blocks.length - 1];
      picture.append(svg("text", { x: 0, y: y + 13, class: "stage-name" }, row.words),
        svg("text", { x: 0, y: y + 27, class: "stage-size" },
          first.from === last.to ? `${first.from} px` : `${first.from} → ${last.to} px`));
      for (let slot = row.blocks.length; slot < (row.stage === null ? 0 : drawn.slots[row.stage]); slot++) {
        picture.append(svg("rect", { class: "empty", x: LEFT + slot * pitch, y, width: pitch - 8, height: BOX, rx: 5 }));
      }
      row.blocks.forEach((block, slot) => {
        const wide = Math.min(pitch - 6, Math.max(34, (pitch - 6) * Math.sqrt(Math.min(1, block.mid / most))));
        const x = LEFT + slot * pitch, share = Math.max(1, Math.min(1, (block.macs / total) * 4) * (pitch - 12));
        const node = svg("g", { class: `block ${stageOf(block) === null ? "fixed" : kernelClass(block)}`, "data-block": block.name },
          svg("rect", { x, y, width: wide, height: BOX, rx: 5 }),
          svg("rect", { class: "share", x: x + 3, y: y + BOX + 3, width: share, height: 3, rx: 1.5 }),
          svg("text", { x: x + wide / 2, y: y + BOX / 2 + 4, "text-anchor": "middle" }, blockLabel(block)));
        node.addEventListener("pointerenter", () => tip.show(blockFacts(block, total), x + wide / 2, y));
        node.addEventListener("pointerleave", () => tip.hide());
        picture.append(node);
      });
    });
    host.querySelector("svg")?.remove();
    host.prepend(picture);
  });
  return host;
}

// The same as a table, for keyboards and screen readers.
function blockTable(network) {
  const blocks = blocksOf(network);
  const details = el("details", {}, el("summary", {}, `Table of its ${blocks.length} blocks`));
  details.addEventListener("toggle", () => {
    if (details.childElementCount > 1) return;
    const heads = ["block", "kind", "channels", "pixels", "kernel", "genes", "MACs", "parameters"];
    const row = (block) => [
      block.name, block.kind, `${block.in} → ${block.mid} → ${block.out}`, `${block.from} → ${block.to}`, block.kernel || "",
      Object.entries(block.genes).map(([name, value]) => `${name} ${value}`).join(", "), short(block.macs), short(block.params),
    ];
    details.append(el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Blocks" }, el("table", { class: "blocks" },
      el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, blocks.map((block) => el("tr", {}, row(block).map((text) => el("td", {}, String(text)))))))));
  });
  return details;
}

function drawingLegend() {
  const elastic = drawn.blocks.filter((block) => stageOf(block) !== null && block.kernel);
  const kernels = [...new Set(elastic.map((block) => block.kernel))].sort((a, b) => a - b);
  const key = (style, words) => el("li", {},
    svg("svg", { width: 22, height: 12, viewBox: "0 0 22 12", "aria-hidden": "true" },
    svg("g", { class: `block ${style}` }, svg("rect", { x: 1, y: 0, width: 20, height: 12, rx: 3 }))), words);
  const names = [...new Set(drawn.blocks.flatMap((block) => Object.keys(block.genes)))];
  const bar = svg("svg", { width: 22, height: 6, viewBox: "0 0 22 6", "aria-hidden": "true" },
    svg("rect", { class: "share", x: 1, y: 1, width: 20, height: 3, rx: 1.5 }));
  return el("ul", { class: "legend" },
    kernels.map((kernel) => key(`k${Math.min(kernel, 9)}`, `kernel ${kernel}×${kernel}`)), key("fixed", "not elastic"),
    names.length ? el("li", {}, `In the boxes: ${names.map((name) => `${name[0]} ${name}`).join(", ")}`) : null,
    el("li", {}, bar, "share of the MACs (full width: a quarter)"));
}
