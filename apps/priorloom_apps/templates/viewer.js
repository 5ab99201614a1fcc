// The viewer of a case: one state, which every canvas, input and reading of the case shows.

async function openViewer(root) {
  const find = (selector) => root.querySelector(selector);
  const data = root.dataset;
  const [rows, columns, range] = [data.rows, data.columns, data.range].map(Number);
  const planes = await unpack(find(".values").textContent, Number(data.planes), rows * columns);
  const truth = "truth" in data ? planes[0] : null;
  const colours = JSON.parse(data.colours);
  const names = [...find(".left").options].map((option) => option.textContent);
  const view = new View(rows, columns);
  const state = {};
  const reset = () => {
    Object.assign(state, { low: Number(data.low), high: Number(data.high), limit: Number(data.limit), split: 0.5 });
    Object.assign(state, { probe: null, line: null, box: null, drawing: null });
    view.moveTo(0, 0, 1);
    find(".preset").value = "auto";
    forget();
  };

  // Pictures are made when they are first painted in a window.
  let greys = [], errors = [];
  const forget = () => ([greys, errors] = [[], []]);
  const greyOf = (i) => (greys[i] ??= picture(rows, columns, (k) => planes[i][k], grey(state.low, state.high)));
  const errorOf = (i) =>
    (errors[i] ??= picture(rows, columns, (k) => planes[i][k] - truth[k], signed(state.limit, colours)));

  // Canvases: the one with the split, and one in the place of each picture of the page.
  const stage = find(".split canvas");
  const tiles = [...root.querySelectorAll(".tiles .frame")].map((frame) => {
    const image = frame.firstElementChild;
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", image.alt);
    image.hidden = true;
    frame.append(canvas);
    return { canvas, plane: Number(frame.dataset.plane), of: frame.classList.contains("error") ? errorOf : greyOf };
  });
  const canvases = [stage, ...tiles.map((tile) => tile.canvas)];
  for (const canvas of canvases) canvas.style.aspectRatio = `${columns} / ${rows}`;

  const scales = () => {
    const all = [...find(".units").options].map(({ value, dataset: { factor, offset } }) => ({
      units: value, factor: Number(factor), of: (v) => Number(factor) * v + Number(offset),
    }));
    return find(".units").selectedIndex === 1 ? all.reverse() : all;
  };

  let due = 0;
  const draw = () => (due ||= requestAnimationFrame(() => {
    due = 0;
    const box = state.box && boxOf(state.box);
    const marks = { probe: state.probe, line: state.line, box };
    const [left, right] = [Number(find(".left").value), Number(find(".right").value)];
    paint(stage, view, [
      { image: greyOf(left), begin: 0, end: state.split },
      { image: greyOf(right), begin: state.split, end: 1 },
    ], marks);
    for (const { canvas, plane, of } of tiles)
      if (canvas.offsetParent) paint(canvas, view, [{ image: of(plane), begin: 0, end: 1 }], marks);
    write(box);
  }));

  // Everything that is not a canvas.
  const write = (box) => {
    const [scale, other] = scales();
    const input = (selector, value) => document.activeElement === find(selector) || (find(selector).value = Number(value.toPrecision(4)));
    input(".level", scale.of((state.low + state.high) / 2));
    input(".width", scale.factor * (state.high - state.low));
    for (const [name, value] of [["low", scale.of(state.low)], ["high", scale.of(state.high)]])
      for (const end of root.querySelectorAll(`.end-${name}`)) end.textContent = show(value, 3);
    if (truth) {
      input(".limit", scale.factor * state.limit);
      find(".end-minus").textContent = show(-scale.factor * state.limit, 3);
      find(".end-plus").textContent = show(scale.factor * state.limit, 3);
    }
    for (const label of root.querySelectorAll(".unit")) label.textContent = scale.units;
    if (other) find(".other-unit").textContent = other.units;
    find(".zoom").textContent = `${view.zoom.toFixed(2)}×`;
    handle.style.left = `${100 * state.split}%`;
    handle.setAttribute("aria-valuenow", Math.round(100 * state.split));
    root.classList.toggle("captures", view.zoom > 1 || tool() !== "move");
    root.classList.toggle("has-region", box !== null);
    root.classList.toggle("has-reading", Boolean(state.probe || state.line || box));
    find(".where").textContent = [
      state.probe ? `row ${state.probe.row}, column ${state.probe.column}` : "Point at an image, or tap it, to read its values.",
      box && `region: rows ${box.top} to ${box.bottom}, columns ${box.left} to ${box.right}, ${(box.bottom - box.top + 1) * (box.right - box.left + 1)} pixels`,
    ].filter(Boolean).join(" · ");
    const table = find(".readings table");
    fillTable(table, planes, truth, columns, [scale, other], { probe: state.probe, box, range });
    find(".profile").toggleAttribute("hidden", !state.line);
    find(".no-profile").hidden = state.line !== null;
    if (!state.line) return;
    const shown = [...table.tBodies[0].rows].filter((row) => row.querySelector("button").ariaPressed === "true");
    const compared = [find(".left").value, find(".right").value];
    const curves = shown.reverse().map(({ dataset: { plane, style } }) => ({
      values: planes[plane], name: names[plane], style: compared.includes(plane) || planes[plane] === truth ? style : `${style} aside`,
    }));
    if (curves.length) plotProfile(find(".profile"), state.line, curves, columns, scale);
    else find(".profile").replaceChildren();
  };

  // What hands do.
  const tool = () => find(".tool:checked").value;
  const pixel = ({ row, column }) => ({
    row: limited(Math.floor(row), 0, rows - 1), column: limited(Math.floor(column), 0, columns - 1),
  });
  const place = { line: "line", region: "box" };
  const begin = (action, at) => (state[place[action]] = { from: pixel(at), to: pixel(at) });
  const extend = (action, at) => (state[place[action]].to = pixel(at));
  const setWindow = (low, high) => {
    if (!(low < high && Number.isFinite(high - low))) return;
    Object.assign(state, { low, high });
    greys = [];
    draw();
  };
  const size = Number(data.high) - Number(data.low);
  const hands = {
    tool, begin, changed: draw,
    probe: (at) => { state.probe = pixel(at); draw(); },
    extend: (action, at) => { extend(action, at); state.probe = pixel(at); draw(); },
    window: (right, down) => { // 300 CSS pixels are the width of the first window
      const level = (state.low + state.high) / 2 + (down * size) / 300;
      const half = Math.max(state.high - state.low + (right * size) / 300, size / 1000) / 2;
      find(".preset").value = "own";
      setWindow(level - half, level + half);
    },
    reset: () => { view.moveTo(0, 0, 1); draw(); },
  };
  for (const canvas of canvases) listen(canvas, view, hands);

  stage.addEventListener("keydown", (event) => {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const middle = view.middle();
    if (steps) {
      const far = event.shiftKey ? 10 : 1;
      const from = state.probe ?? pixel(middle);
      state.probe = pixel({ row: from.row + far * steps[0], column: from.column + far * steps[1] });
      view.follow(state.probe);
      if (state.drawing) extend(state.drawing, state.probe);
    } else if (event.key === "Enter" && tool() in place) {
      state.probe ??= pixel(middle);
      if (!state.drawing) begin(tool(), state.probe);
      state.drawing = state.drawing ? null : tool();
    } else if (event.key === "+" || event.key === "-") view.zoomAt(event.key === "+" ? 2 : 0.5, state.probe ?? middle);
    else if (event.key === "0") view.moveTo(0, 0, 1);
    else if (event.key === "Escape") Object.assign(state, { line: null, box: null, drawing: null });
    else return;
    event.preventDefault();
    draw();
  });

  const handle = find(".handle");
  handle.addEventListener("pointerdown", (event) => handle.setPointerCapture(event.pointerId));
  handle.addEventListener("pointermove", (event) => {
    if (!handle.hasPointerCapture(event.pointerId)) return;
    const frame = stage.getBoundingClientRect();
    state.split = limited((event.clientX - frame.left) / frame.width, 0, 1);
    draw();
  });
  handle.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: state.split - 0.02, ArrowRight: state.split + 0.02, Home: 0, End: 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    state.split = limited(to, 0, 1);
    draw();
  });

  // What the controls do.
  const zoomBy = (factor) => () => { view.zoomAt(factor, view.middle()); draw(); };
  find(".closer").addEventListener("click", zoomBy(2));
  find(".wider").addEventListener("click", zoomBy(0.5));
  find(".reset").addEventListener("click", () => { reset(); draw(); });
  find(".preset").addEventListener("change", ({ target }) => {
    const chosen = target.selectedOptions[0].dataset;
    if (chosen.low) setWindow(Number(chosen.low), Number(chosen.high));
  });
  const typed = () => {
    const [{ factor, of }] = scales();
    const level = (Number(find(".level").value) - of(0)) / factor, half = Number(find(".width").value) / factor / 2;
    find(".preset").value = "own";
    setWindow(level - half, level + half);
  };
  find(".level").addEventListener("input", typed);
  find(".width").addEventListener("input", typed);
  find(".limit")?.addEventListener("input", ({ target }) => {
    if (!(target.value > 0)) return;
    state.limit = target.value / scales()[0].factor;
    errors = [];
    draw();
  });
  find(".size").addEventListener("input", ({ target }) => root.style.setProperty("--tile", `${target.value}px`));
  find(".shown")?.addEventListener("change", ({ target }) => { find(".tiles").dataset.shown = target.value; draw(); });
  for (const choice of root.querySelectorAll(".left, .right, .units, .tool")) choice.addEventListener("change", draw);
  for (const name of root.querySelectorAll(".readings tbody button"))
    name.addEventListener("click", () => { name.ariaPressed = name.ariaPressed !== "true"; draw(); });
  const observer = new ResizeObserver(draw);
  canvases.forEach((canvas) => observer.observe(canvas));

  reset();
  root.classList.add("ready");
  draw();
}

// A case is unpacked when it comes near.
for (const root of document.querySelectorAll(".viewer")) {
  const fail = (reason) => {
    const note = root.querySelector(".failed");
    note.hidden = false;
    note.append(` (${reason})`);
  };
  const near = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    near.disconnect();
    if (typeof DecompressionStream === "undefined") fail("it has no DecompressionStream");
    else openViewer(root).catch((error) => fail(error.message));
  }, { rootMargin: "800px" });
  near.observe(root);
}
