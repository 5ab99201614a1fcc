// The viewer of a case: one state, and what every canvas, input and reading of the case shows of it.

class Viewer {
  constructor(root, planes, rows, columns) {
    const { low, high, limit, range, colours } = root.dataset;
    const truth = "truth" in root.dataset ? planes[0] : null;
    Object.assign(this, { root, planes, truth, rows, columns, range: Number(range), colours: JSON.parse(colours) });
    this.first = { low: Number(low), high: Number(high), limit: Number(limit) };
    this.names = [...this.find(".left").options].map((option) => option.textContent);
    this.view = new View(rows, columns);
    this.stage = this.find(".split canvas");
    this.tiles = [...root.querySelectorAll(".tiles .frame")].map((frame) => this.tile(frame));
    this.canvases = [this.stage, ...this.tiles.map((tile) => tile.canvas)];
    root.style.setProperty("--shape", columns / rows);
    this.due = 0;
    this.reset();
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  // A canvas in the place of a picture of the page.
  tile(frame) {
    const image = frame.firstElementChild;
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", image.alt);
    image.hidden = true;
    frame.append(canvas);
    return { canvas, plane: frame.dataset.plane, error: frame.classList.contains("error") };
  }

  reset() {
    this.state = { ...this.first, split: 0.5, probe: null, line: null, region: null };
    [this.greys, this.errors, this.drawing] = [[], [], null];
    this.view.moveTo(0, 0, 1);
    this.find(".preset").value = "auto";
  }

  setWindow(low, high) {
    if (!(low < high && Number.isFinite(high - low))) return;
    Object.assign(this.state, { low, high });
    this.greys = [];
    this.draw();
  }

  setLimit(limit) {
    if (!(limit > 0 && Number.isFinite(limit))) return;
    this.state.limit = limit;
    this.errors = [];
    this.draw();
  }

  // The pixel at a point of the image, the nearest one outside of it.
  pixel({ row, column }) {
    return {
      row: limited(Math.floor(row), 0, this.rows - 1),
      column: limited(Math.floor(column), 0, this.columns - 1),
    };
  }

  tool() {
    return this.find(".tool:checked").value;
  }

  // The units of the readings: the chosen ones, then the others where there are others.
  scales() {
    const { options, selectedIndex } = this.find(".units");
    const all = [...options].map(({ value, dataset }) => {
      const [factor, offset] = [Number(dataset.factor), Number(dataset.offset)];
      return { units: value, factor, of: (v) => factor * v + offset, from: (shown) => (shown - offset) / factor };
    });
    return selectedIndex === 1 ? all.reverse() : all;
  }

  // Pictures are made when they are first painted in a window.
  greyOf(plane) {
    const { low, high } = this.state;
    return (this.greys[plane] ??= picture(this.rows, this.columns, grey(this.planes[plane], low, high)));
  }

  errorOf(plane) {
    const { planes, truth, colours, state: { limit } } = this;
    return (this.errors[plane] ??= picture(this.rows, this.columns, signed(planes[plane], truth, limit, colours)));
  }

  // Once in a frame, however often it is asked for.
  draw() {
    this.due ||= requestAnimationFrame(() => {
      this.due = 0;
      this.paint();
      this.write();
    });
  }

  paint() {
    const { probe, line, region, split } = this.state;
    const marks = { probe, line, box: region && boxOf(region) };
    const [left, right] = [this.find(".left").value, this.find(".right").value];
    paint(this.stage, this.view, [
      { image: this.greyOf(left), begin: 0, end: split },
      { image: this.greyOf(right), begin: split, end: 1 },
    ], marks);
    for (const { canvas, plane, error } of this.tiles)
      if (canvas.offsetParent) {
        const image = error ? this.errorOf(plane) : this.greyOf(plane);
        paint(canvas, this.view, [{ image, begin: 0, end: 1 }], marks);
      }
  }

  // Everything that is not a canvas.
  write() {
    const { low, high, limit, split, probe, line, region } = this.state;
    const [scale, other] = this.scales();
    const put = (selector, text) => this.root.querySelectorAll(selector).forEach((place) => (place.textContent = text));
    const fill = (selector, value) => {
      const input = this.find(selector); // what is being typed stays
      if (input && input !== document.activeElement) input.value = Number(value.toPrecision(4));
    };
    fill(".level", scale.of((low + high) / 2));
    fill(".width", scale.factor * (high - low));
    fill(".limit", scale.factor * limit);
    put(".end-low", show(scale.of(low), 3));
    put(".end-high", show(scale.of(high), 3));
    put(".end-minus", show(-scale.factor * limit, 3));
    put(".end-plus", show(scale.factor * limit, 3));
    put(".unit", scale.units);
    put(".other-unit", other?.units);
    put(".zoom", `${this.view.zoom.toFixed(2)}×`);
    const handle = this.find(".handle");
    handle.style.left = `${100 * split}%`;
    handle.setAttribute("aria-valuenow", Math.round(100 * split));
    this.root.classList.toggle("captures", this.view.zoom > 1 || this.tool() !== "move");
    this.root.classList.toggle("has-region", region !== null);
    this.root.classList.toggle("has-reading", Boolean(probe || line || region));
    put(".where", whereabouts(probe, region && boxOf(region)));
    fillTable(this.find(".readings table"), this, [scale, other]);
    this.find(".profile").toggleAttribute("hidden", !line);
    this.find(".no-profile").hidden = line !== null;
    if (line) plotProfile(this.find(".profile"), line, this.curves(), this.columns, scale);
  }

  // What the plot shows: the methods whose names are pressed, faint unless they are compared, the truth on top.
  curves() {
    const compared = [this.find(".left").value, this.find(".right").value];
    const rows = [...this.root.querySelectorAll(".readings tbody tr")];
    return rows.filter((row) => row.querySelector("button").ariaPressed === "true").reverse().map((row) => {
      const { plane, style } = row.dataset;
      const values = this.planes[plane];
      const strong = values === this.truth || compared.includes(plane);
      return { values, name: this.names[plane], style: strong ? style : `${style} aside` };
    });
  }
}

async function openViewer(root) {
  const [rows, columns, count] = [root.dataset.rows, root.dataset.columns, root.dataset.planes].map(Number);
  const planes = await unpack(root.querySelector(".values").textContent, count, rows * columns);
  const viewer = new Viewer(root, planes, rows, columns);
  connect(viewer);
  root.classList.add("ready");
  viewer.draw();
}

// A case is unpacked when it comes near.
for (const root of document.querySelectorAll(".viewer")) {
  if (!root.querySelector(".values")) continue;
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
