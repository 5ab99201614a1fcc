// What is read from the values: the table of probe and region, and the plot along the line.

// A child of an <svg>.
function append(parent, name, attributes, text = "") {
  const made = document.createElementNS(parent.namespaceURI, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  parent.append(made);
  return made;
}

const plain = (value) => String(Number(value.toPrecision(6))).replace("-", "−");

// Round values from low to high, at most `most`.
function ticks(low, high, most) {
  for (let exponent = Math.floor(Math.log10((high - low) / most)); ; exponent++)
    for (const digit of [1, 2, 5]) {
      const step = digit * 10 ** exponent;
      const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
      if (last - first < most) return Array.from({ length: last - first + 1 }, (_, k) => (first + k) * step);
    }
}

// Where the probe is and what the region covers, in words.
function whereabouts(probe, box) {
  const asked = "Point at an image, or tap it, to read its values.";
  const point = probe ? `row ${probe.row}, column ${probe.column}` : asked;
  if (!box) return point;
  const { top, bottom, left, right } = box;
  const count = (bottom - top + 1) * (right - left + 1);
  return `${point} · region: rows ${top} to ${bottom}, columns ${left} to ${right}, ${count} pixels`;
}

// The cells of the readings, in the units of two scales: the chosen one, and another or none.
function fillTable(table, { planes, truth, columns, range, state }, [chosen, other]) {
  const at = state.probe && state.probe.row * columns + state.probe.column;
  const box = state.region && boxOf(state.region);
  for (const row of table.tBodies[0].rows) {
    const values = planes[row.dataset.plane];
    const judged = values === truth ? null : truth;
    const put = (name, value, digits) => {
      const cell = row.querySelector(`.${name}`);
      if (cell) cell.textContent = value === null ? "–" : show(value, digits);
    };
    put("value", state.probe && chosen.of(values[at]), 4);
    put("other", state.probe && other ? other.of(values[at]) : null, 3);
    put("difference", state.probe && judged && chosen.factor * (values[at] - judged[at]), 3);
    const figures = box && measure(values, judged, columns, box, range);
    put("mean", figures && chosen.of(figures.mean), 4);
    put("deviation", figures && chosen.factor * figures.deviation, 3);
    put("rmse", figures && judged && chosen.factor * figures.rmse, 3);
    put("psnr", figures && judged && figures.psnr, 4);
  }
}

// The values along the line: `curves` are {values, style, name}, what comes last lies on top.
function plotProfile(svg, line, curves, columns, scale) {
  svg.replaceChildren();
  if (!curves.length) return;
  const pixels = pixelsOfLine(line);
  const length = pixels.at(-1).distance || 1;
  const drawn = curves.map(({ values, ...curve }) => (
    { ...curve, heights: pixels.map(({ row, column }) => scale.of(values[row * columns + column])) }
  ));
  const [wide, high] = [Math.max(svg.clientWidth, 240), 250];
  const box = { left: 58, right: wide - 10, top: 22, bottom: high - 36 };
  const all = drawn.flatMap((curve) => curve.heights);
  let [low, top] = [Math.min(...all), Math.max(...all)];
  if (low === top) [low, top] = [low - (Math.abs(low) || 1) / 2, low + (Math.abs(low) || 1) / 2];
  const room = 0.05 * (top - low);
  const x = (distance) => box.left + ((box.right - box.left) * distance) / length;
  const y = (value) => box.bottom + ((box.top - box.bottom) * (value - low + room)) / (top - low + 2 * room);

  svg.setAttribute("viewBox", `0 0 ${wide} ${high}`);
  const add = (name, attributes, text) => append(svg, name, attributes, text);
  add("text", { class: "heading", x: box.left, y: 13 }, `Values along the line (${scale.units})`);
  for (const tick of ticks(low - room, top + room, 6)) {
    add("line", { class: "grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) });
    add("text", { class: "tick", x: box.left - 7, y: y(tick) + 4, "text-anchor": "end" }, plain(tick));
  }
  for (const tick of ticks(0, length, Math.min(8, Math.floor(wide / 60)))) {
    add("line", { class: "grid", x1: x(tick), x2: x(tick), y1: box.top, y2: box.bottom });
    add("text", { class: "tick", x: x(tick), y: box.bottom + 15, "text-anchor": "middle" }, plain(tick));
  }
  add("path", { class: "axis", d: `M${box.left} ${box.top}V${box.bottom}H${box.right}` });
  const middle = (box.left + box.right) / 2;
  add("text", { class: "tick", x: middle, y: high - 5, "text-anchor": "middle" }, "pixels along the line");
  for (const { style, name, heights } of drawn) {
    const group = add("g", { class: `curve ${style}` });
    append(group, "title", {}, name);
    const points = heights.map((value, k) => `${x(pixels[k].distance).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    append(group, "polyline", { points });
  }
}
