// The true values of a case: how they are unpacked, written, and measured.

// `count` planes of `pixels` float32 values each; packed as priorloom_apps/pack.py says.
async function unpack(text, count, pixels) {
  const packed = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const shuffled = new Uint8Array(await new Response(stream).arrayBuffer());
  const size = count * pixels;
  if (shuffled.length !== 4 * size) throw new Error(`${shuffled.length} bytes for ${size} values`);
  const bytes = new Uint8Array(4 * size);
  for (let place = 0; place < 4; place++)
    for (let i = 0; i < size; i++) bytes[4 * i + place] = shuffled[place * size + i];
  const values = new Float32Array(bytes.buffer); // every platform with a browser is little-endian
  return Array.from({ length: count }, (_, i) => values.subarray(i * pixels, (i + 1) * pixels));
}

// To `digits` significant digits, without an exponent where that is short.
function show(value, digits = 4) {
  if (value === null || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e-3 && size < 1e6
    ? value.toFixed(Math.max(digits - 1 - Math.floor(Math.log10(size)), 0))
    : value.toExponential(digits - 1).replace("e+", "e");
  return text.replaceAll("-", "−");
}

// The pixels of a line, one for each step along its longer side: nearest ones, so that their values are true values.
function pixelsOfLine({ from, to }) {
  const rows = to.row - from.row, columns = to.column - from.column;
  const steps = Math.max(Math.abs(rows), Math.abs(columns), 1);
  const length = Math.hypot(rows, columns);
  return Array.from({ length: steps + 1 }, (_, k) => ({
    row: from.row + Math.round((rows * k) / steps),
    column: from.column + Math.round((columns * k) / steps),
    distance: (length * k) / steps,
  }));
}

// The rectangle that has these two pixels in its corners; both ends belong to it.
function boxOf({ from, to }) {
  return {
    top: Math.min(from.row, to.row), bottom: Math.max(from.row, to.row),
    left: Math.min(from.column, to.column), right: Math.max(from.column, to.column),
  };
}

// Mean and standard deviation in a box; against a truth the root mean square error, and PSNR = 20 log10(range / RMSE).
function measure(values, truth, columns, { top, bottom, left, right }, range) {
  let count = 0, sum = 0, squares = 0, errors = 0;
  for (let row = top; row <= bottom; row++)
    for (let column = left; column <= right; column++) {
      const i = row * columns + column;
      count += 1;
      sum += values[i];
      if (truth) errors += (values[i] - truth[i]) ** 2;
    }
  const mean = sum / count;
  for (let row = top; row <= bottom; row++)
    for (let column = left; column <= right; column++) squares += (values[row * columns + column] - mean) ** 2;
  const rmse = truth ? Math.sqrt(errors / count) : null;
  return { mean, deviation: Math.sqrt(squares / count), rmse, psnr: truth ? 20 * Math.log10(range / rmse) : null };
}
