// What hands do on a canvas: point, drag, pinch, wheel. `on` says what it means:
// tool(), probe(point), window(right, down), begin(point), extend(point), changed(), reset().

const STILL = 4; // CSS pixels that a tap may move
const SCROLLING = 400; // ms after which the page is at rest
let scrolled = -Infinity; // when the wheel last moved the page: a wheel that came with the page goes on with it
window.addEventListener("wheel", (event) => {
  if (!event.defaultPrevented) scrolled = event.timeStamp;
}, { passive: true });

function listen(canvas, view, on) {
  const pointers = new Map();
  let action = null, start = null;

  const pointAt = ({ x, y }) => {
    const frame = canvas.getBoundingClientRect();
    return {
      column: view.left + (((x - frame.left) / frame.width) * view.columns) / view.zoom,
      row: view.top + (((y - frame.top) / frame.height) * view.rows) / view.zoom,
    };
  };
  const shift = (from, to) => {
    const a = pointAt(from), b = pointAt(to);
    view.moveTo(view.left + a.column - b.column, view.top + a.row - b.row);
  };
  const spread = ([a, b]) => ({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, distance: Math.hypot(a.x - b.x, a.y - b.y) });

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    start = { x: event.clientX, y: event.clientY };
    pointers.set(event.pointerId, start);
    action = pointers.size > 1 ? "pinch" : event.button === 2 ? "window" : "tap";
  });

  canvas.addEventListener("pointermove", (event) => {
    const now = { x: event.clientX, y: event.clientY };
    const before = pointers.get(event.pointerId);
    if (!before) {
      if (event.pointerType === "mouse") on.probe(pointAt(now));
      return;
    }
    if (action === "pinch") {
      const old = spread([...pointers.values()]);
      pointers.set(event.pointerId, now);
      const fresh = spread([...pointers.values()]);
      view.zoomAt(fresh.distance / Math.max(old.distance, 1), pointAt(old));
      shift(old, fresh);
      on.changed();
      return;
    }
    if (action === "tap") {
      if (Math.hypot(now.x - start.x, now.y - start.y) < STILL) return;
      action = on.tool();
      if (action === "line" || action === "region") on.begin(action, pointAt(start));
    }
    pointers.set(event.pointerId, now);
    if (action === "move") {
      shift(before, now);
      on.changed();
    } else if (action === "window") on.window(now.x - before.x, now.y - before.y);
    else if (action) on.extend(action, pointAt(now));
  });

  const release = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    if (action === "tap" && event.type === "pointerup") on.probe(pointAt({ x: event.clientX, y: event.clientY }));
    action = null; // a finger that stays after a pinch does nothing until it is lifted
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", () => on.reset());

  // Two fingers are ours even where one scrolls the page.
  const own = (event) => event.touches.length > 1 && event.cancelable && event.preventDefault();
  canvas.addEventListener("touchstart", own, { passive: false });
  canvas.addEventListener("touchmove", own, { passive: false });

  canvas.addEventListener("wheel", (event) => {
    const pixels = event.deltaY * [1, 30, 300][event.deltaMode];
    const atEnd = view.zoom === (pixels > 0 ? 1 : view.deepest);
    if (!event.ctrlKey && (atEnd || event.timeStamp - scrolled < SCROLLING)) return;
    event.preventDefault();
    view.zoomAt(Math.exp(-limited(pixels, -300, 300) / 400), pointAt({ x: event.clientX, y: event.clientY }));
    on.changed();
  }, { passive: false });
}
