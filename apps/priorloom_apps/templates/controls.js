// What hands, keys and inputs do to the state of a viewer.

function connect(viewer) {
  for (const canvas of viewer.canvases) listen(canvas, viewer.view, gesturesOf(viewer));
  viewer.stage.addEventListener("keydown", (event) => pressed(viewer, event));
  connectHandle(viewer);
  connectInputs(viewer);
  const observer = new ResizeObserver(() => viewer.draw());
  viewer.canvases.forEach((canvas) => observer.observe(canvas));
}

function gesturesOf(viewer) {
  const { view, first: { low, high } } = viewer;
  return {
    tool: () => viewer.tool(),
    changed: () => viewer.draw(),
    reset() {
      view.moveTo(0, 0, 1);
      viewer.draw();
    },
    probe(at) {
      viewer.state.probe = viewer.pixel(at);
      viewer.draw();
    },
    begin(tool, at) {
      viewer.state[tool] = { from: viewer.pixel(at), to: viewer.pixel(at) };
    },
    extend(tool, at) {
      viewer.state[tool].to = viewer.pixel(at);
      this.probe(at);
    },
    window(right, down) { // 300 CSS pixels are the width of the first window
      const size = (high - low) / 300, now = viewer.state;
      const level = (now.low + now.high) / 2 + down * size;
      const half = Math.max(now.high - now.low + right * size, size) / 2;
      viewer.find(".preset").value = "own";
      viewer.setWindow(level - half, level + half);
    },
  };
}

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

// Keys on the large image; `viewer.drawing` is the line or region that follows the probe.
function pressed(viewer, event) {
  const { state, view, stage } = viewer;
  const tool = viewer.tool(), at = state.probe ?? viewer.pixel(view.middle());
  const gestures = gesturesOf(viewer);
  if (event.key in ARROWS) {
    const [rows, columns] = ARROWS[event.key].map((step) => step * (event.shiftKey ? 10 : 1));
    gestures.probe({ row: at.row + rows, column: at.column + columns });
    view.follow(state.probe);
    if (state[viewer.drawing]) gestures.extend(viewer.drawing, state.probe);
  } else if (event.key === "Enter" && tool in state) {
    gestures.probe(at);
    if (viewer.drawing !== tool) gestures.begin(tool, at);
    viewer.drawing = viewer.drawing === tool ? null : tool;
  } else if (event.key === "+") view.zoomAt(2, at);
  else if (event.key === "-") view.zoomAt(0.5, at);
  else if (event.key === "0") view.moveTo(0, 0, 1);
  else if (event.key === "Escape") state.line = state.region = viewer.drawing = null;
  else return;
  event.preventDefault();
  viewer.draw();
}

function connectHandle(viewer) {
  const handle = viewer.find(".handle");
  const move = (share) => {
    viewer.state.split = limited(share, 0, 1);
    viewer.draw();
  };
  handle.addEventListener("pointerdown", (event) => handle.setPointerCapture(event.pointerId));
  handle.addEventListener("pointermove", (event) => {
    if (!handle.hasPointerCapture(event.pointerId)) return;
    const frame = viewer.stage.getBoundingClientRect();
    move((event.clientX - frame.left) / frame.width);
  });
  handle.addEventListener("keydown", (event) => {
    const { split } = viewer.state;
    const to = { ArrowLeft: split - 0.02, ArrowRight: split + 0.02, Home: 0, End: 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    move(to);
  });
}

function connectInputs(viewer) {
  const { root, view } = viewer;
  const on = (selector, type, act) => {
    for (const input of root.querySelectorAll(selector)) input.addEventListener(type, act);
  };
  const zoom = (factor) => {
    view.zoomAt(factor, view.middle());
    viewer.draw();
  };
  on(".closer", "click", () => zoom(2));
  on(".wider", "click", () => zoom(0.5));
  on(".reset", "click", () => {
    viewer.reset();
    viewer.draw();
  });
  on(".preset", "change", ({ target }) => {
    const { low, high } = target.selectedOptions[0].dataset;
    if (low) viewer.setWindow(Number(low), Number(high));
  });
  on(".level, .width", "input", () => {
    const [scale] = viewer.scales();
    const level = viewer.find(".level").valueAsNumber, half = viewer.find(".width").valueAsNumber / 2;
    viewer.find(".preset").value = "own";
    viewer.setWindow(scale.from(level - half), scale.from(level + half));
  });
  on(".limit", "input", ({ target }) => viewer.setLimit(target.valueAsNumber / viewer.scales()[0].factor));
  on(".level, .width, .limit", "blur", () => viewer.draw()); // what is in force stands in the place of what cannot be
  on(".size", "input", ({ target }) => root.style.setProperty("--tile", `${target.value}px`));
  on(".shown", "change", ({ target }) => {
    viewer.find(".tiles").dataset.shown = target.value;
    viewer.draw();
  });
  on(".left, .right, .units, .tool", "change", () => viewer.draw());
  on(".readings tbody button", "click", ({ currentTarget: name }) => {
    name.ariaPressed = name.ariaPressed !== "true";
    viewer.draw();
  });
}
