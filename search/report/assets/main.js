// Draws the contents of this page.
for (const host of document.querySelectorAll("[data-chart]")) {
  const chart = page.charts[host.dataset.chart];
  new Plot(host, { ...chart, height: 240, label: `${chart.words}. Arrow keys move from point to point.` });
}
if (page.kind === "front") {
  const explorer = new Explorer();
  drawChosen(explorer);
  window.report = { explorer, archOf, page };
}
document.documentElement.dataset.ready = "";
