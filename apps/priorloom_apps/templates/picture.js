// From values to pixels: the part of an image that is seen, its greys, its errors, and the marks on it.

const limited = (value, low, high) => Math.min(Math.max(value, low), high);

// The part of the image that every canvas of a case shows: from (left, top), in pixels, `columns / zoom` wide.
class View {
  constructor(rows, columns) {
    Object.assign(this, { rows, columns, zoom: 1, left: 0, top: 0 });
    this.deepest = Math.max(Math.min(rows, columns) / 4, 1); // four pixels fill the frame
  }

  // Zoom by a factor; the point of the image at (column, row) keeps its place.
  zoomAt(factor, { column, row }) {
    const zoom = limited(this.zoom * factor, 1, this.deepest);
    this.moveTo(column - ((column - this.left) * this.zoom) / zoom, row - ((row - this.top) * this.zoom) / zoom, zoom);
  }

  moveTo(left, top, zoom = this.zoom) {
    this.zoom = zoom;
    this.left = limited(left, 0, this.columns * (1 - 1 / zoom));
    this.top = limited(top, 0, this.rows * (1 - 1 / zoom));
  }

  middle() {
    return { column: this.left + this.columns / this.zoom / 2, row: this.top + this.rows / this.zoom / 2 };
  }

  // Bring a pixel into sight.
  follow({ column, row }) {
    this.moveTo(
      limited(this.left, column + 1 - this.columns / this.zoom, column),
      limited(this.top, row + 1 - this.rows / this.zoom, row),
    );
  }
}

// A canvas of one pixel a value; `colour(i)` is the value's colour as one word, as `opaque` makes it.
function picture(rows, columns, colour) {
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const words = new Uint32Array(image.data.buffer);
  for (let i = 0; i < words.length; i++) words[i] = colour(i);
  context.putImageData(image, 0, 0);
  return canvas;
}

const opaque = (red, green, blue) => (255 << 24) | (blue << 16) | (green << 8) | red;

// `low` is black, `high` white, linear and rounded between.
function grey(values, low, high) {
  const scale = 255 / (high - low);
  return (i) => {
    const level = Math.round(limited((values[i] - low) * scale, 0, 255));
    return opaque(level, level, level);
  };
}

// Errors in the stops of `colours` from -limit to limit, linear between.
function signed(values, truth, limit, colours) {
  const last = colours.length - 1;
  return (i) => {
    const place = limited(((values[i] - truth[i]) / limit + 1) / 2, 0, 1) * last;
    const stop = Math.min(Math.floor(place), last - 1), share = place - stop;
    const [from, to] = [colours[stop], colours[stop + 1]];
    const mixed = (c) => Math.round(from[c] + share * (to[c] - from[c]));
    return opaque(mixed(0), mixed(1), mixed(2));
  };
}

// Draw `parts`, each a picture with the share of the canvas from `begin` to `end`, as the view sees them.
function paint(canvas, view, parts, marks) {
  const { width, height } = canvas.getBoundingClientRect();
  const ratio = window.devicePixelRatio || 1;
  const [wide, high] = [Math.max(Math.round(width * ratio), 1), Math.max(Math.round(height * ratio), 1)];
  if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
  const context = canvas.getContext("2d");
  const [across, down] = [(wide * view.zoom) / view.columns, (high * view.zoom) / view.rows];
  for (const { image, begin, end } of parts) {
    context.save();
    context.beginPath();
    context.rect(Math.round(begin * wide), 0, Math.round(end * wide) - Math.round(begin * wide), high);
    context.clip();
    context.imageSmoothingEnabled = across < 1; // pixels look like pixels, unless several share one of the screen
    context.setTransform(across, 0, 0, down, -view.left * across, -view.top * down);
    context.drawImage(image, 0, 0);
    context.restore();
  }
  const place = ({ column, row }) => [(column - view.left) * across, (row - view.top) * down];
  drawMarks(context, place, ratio, marks);
}

// The probe, the line and the region, light on dark so that they are seen on every grey.
function drawMarks(context, place, ratio, { probe, line, box }) {
  const path = new Path2D();
  if (box) {
    const [left, top] = place({ column: box.left, row: box.top });
    const [right, bottom] = place({ column: box.right + 1, row: box.bottom + 1 });
    path.rect(left, top, right - left, bottom - top);
  }
  const centre = (pixel) => place({ column: pixel.column + 0.5, row: pixel.row + 0.5 });
  if (line) {
    path.moveTo(...centre(line.from));
    path.lineTo(...centre(line.to));
  }
  if (probe) {
    const [x, y] = centre(probe);
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      path.moveTo(x + 4 * ratio * dx, y + 4 * ratio * dy);
      path.lineTo(x + 10 * ratio * dx, y + 10 * ratio * dy);
    }
  }
  for (const [colour, width] of [["rgb(0 0 0 / .6)", 3.5], ["#ffd94a", 1.5]]) {
    context.strokeStyle = colour;
    context.lineWidth = width * ratio;
    context.stroke(path);
  }
}
