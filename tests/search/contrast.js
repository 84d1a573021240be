// The texts of a page whose contrast to what is behind them is below 4.5 (WCAG 2, level AA), each with its ratio.
(() => {
  const channels = (text) => {
    const [r, g, b, a = 1] = text.match(/[\d.]+(?:e-?\d+)?/g).map(Number);
    return text.startsWith("color(") ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
  };
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const luminance = (colour) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => sum + weight * linear(colour[i] / 255), 0);
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3]));
  const ground = (node) => (node ? over(channels(getComputedStyle(node).backgroundColor), ground(node.parentElement)) : [255, 255, 255]);
  const low = [];
  for (const node of document.querySelectorAll("body *")) {
    const words = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!words || node.closest("script, style, .tip, .skip, .unseen") || !node.getClientRects().length) continue;
    const drawn = node.closest("svg"), box = node.closest(".block")?.querySelector("rect");
    const below = box ? over(channels(getComputedStyle(box).fill), ground(drawn)) : ground(drawn || node);
    const style = getComputedStyle(node);
    const [one, two] = [over(channels(drawn ? style.fill : style.color), below), below].map(luminance);
    const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    if (ratio < 4.5) low.push(`${node.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return low;
})()
