// Latency of the last requests: percentiles, and a stack of its parts over time.
export const PARTS = ["pre", "queue", "infer", "post"];
const SVG = "http://www.w3.org/2000/svg";
const LEFT = 46, RIGHT = 6, TOP = 8, BOTTOM = 22, MAX_BINS = 100;

export const milliseconds = (value) =>
  value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);

/** The q-quantile of numbers in ascending order, interpolated between neighbours. */
export function quantile(sorted, q) {
  const at = (sorted.length - 1) * q, low = Math.floor(at), high = Math.ceil(at);
  return sorted[low] + (sorted[high] - sorted[low]) * (at - low);
}

/** One object per request: at, pre, queue, infer, post, total, batch. */
export function requests({ columns, rows }) {
  const column = Object.fromEntries(columns.map((name, i) => [name, i]));
  return rows.map((row) => {
    const request = { at: row[column.at], batch: row[column.batch_size], total: 0 };
    for (const part of PARTS) request.total += request[part] = row[column[`${part}_ms`]];
    return request;
  });
}

/** Rows of the table: a part, and its p50, p95 and p99. */
export function percentiles(all) {
  return [...PARTS, "total"].map((part) => {
    const sorted = all.map((request) => request[part]).sort((a, b) => a - b);
    return [part, ...[0.5, 0.95, 0.99].map((q) => milliseconds(quantile(sorted, q)))];
  });
}

/** Put the requests into slices of equal time; a slice without any is left out. */
function slices(all, count) {
  const first = Math.min(...all.map((r) => r.at)), last = Math.max(...all.map((r) => r.at));
  const width = Math.max((last - first) / count, 0.1);
  const found = new Map();
  for (const request of all) {
    const index = Math.min(count - 1, Math.floor((request.at - first) / width));
    if (!found.has(index)) found.set(index, []);
    found.get(index).push(request);
  }
  const mean = (members, key) => members.reduce((sum, r) => sum + r[key], 0) / members.length;
  const bins = [...found].sort(([a], [b]) => a - b).map(([index, members]) => ({
    index, at: first + (index + 0.5) * width, n: members.length,
    slowest: Math.max(...members.map((r) => r.total)),
    ...Object.fromEntries([...PARTS, "total"].map((key) => [key, mean(members, key)])),
    // Nothing is predicted for a session that still has actions; its batch size is 0.
    batch: mean(members.filter((r) => r.batch), "batch") || 0,
  }));
  return { bins, first, last, width };
}

/** The smallest of 1, 2, 2.5 or 5 times a power of ten that is at least `value`. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= value * (1 - 1e-9));
}

export class LatencyChart {
  constructor(svg, readout) {
    this.svg = svg;
    this.readout = readout;
    this.all = [];
    this.chosen = null;
    svg.addEventListener("pointermove", (event) => this.point(event));
    svg.addEventListener("pointerdown", (event) => this.point(event));
    svg.addEventListener("pointerleave", () => this.choose(null));
    svg.addEventListener("blur", () => this.choose(null));
    svg.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(svg);
  }

  show(all) {
    this.all = all;
    this.draw();
  }

  draw() {
    const width = this.svg.clientWidth, height = this.svg.clientHeight;
    if (!this.all.length || !width) return;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren();
    const inner = width - LEFT - RIGHT;
    const count = Math.max(10, Math.min(MAX_BINS, Math.floor(inner / 6)));
    const { bins, first, last, width: slice } = slices(this.all, count);
    const totals = this.all.map((r) => r.total).sort((a, b) => a - b);
    // One request that took a hundred times as long must not flatten all others.
    const high = Math.max(quantile(totals, 0.99) * 1.15, ...bins.map((b) => b.total), 1e-3);
    const step = roundUp(high / 4), top = Math.ceil(high / step) * step;
    const y = (ms) => height - BOTTOM - (Math.min(ms, top) / top) * (height - TOP - BOTTOM);
    for (let ms = 0; ms <= top + step / 2; ms += step) {
      this.line(LEFT, y(ms), width - RIGHT, y(ms));
      this.text(LEFT - 8, y(ms) + 4, +ms.toPrecision(6), "end");
    }
    const clock = (at) => new Date(at * 1000).toLocaleTimeString();
    this.text(LEFT, height - 4, clock(first), "start");
    this.text(width - RIGHT, height - 4, clock(last), "end");
    this.slice = slice;
    this.bins = bins;
    this.columns = bins.map((bin) => {
      const x = LEFT + (bin.index / count) * inner, w = inner / count;
      let sum = 0;
      for (const part of PARTS) {
        this.rect(x, y(sum + bin[part]), Math.max(1, w - 1), y(sum) - y(sum + bin[part]), part);
        sum += bin[part];
      }
      this.dot(x + (w - 1) / 2, y(bin.slowest));
      return { x, w };
    });
    this.cursor = this.rect(0, TOP, 0, height - TOP - BOTTOM, "cursor");
    this.choose(this.chosen);
  }

  add(name, attributes) {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return this.svg.appendChild(node);
  }

  line(x1, y1, x2, y2) { this.add("line", { x1, y1, x2, y2, class: "grid" }); }
  rect(x, y, width, height, name) { return this.add("rect", { x, y, width, height, class: name }); }
  dot(cx, cy) { this.add("circle", { cx, cy, r: 1.6, class: "slowest" }); }
  text(x, y, words, anchor) { this.add("text", { x, y, "text-anchor": anchor }).textContent = words; }

  point(event) {
    if (!this.columns) return;
    const x = event.clientX - this.svg.getBoundingClientRect().left;
    const distance = ({ x: left, w }) => Math.abs(left + w / 2 - x);
    const nearest = this.columns.reduce(
      (best, column, i) => (distance(column) < distance(this.columns[best]) ? i : best), 0);
    this.choose(nearest);
  }

  key(event) {
    if (!this.bins) return;
    const last = this.bins.length - 1, now = this.chosen ?? last + 1;
    const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    this.choose(Math.max(0, Math.min(last, next)));
  }

  /** Say in words what is at one place of the chart. */
  choose(index) {
    this.chosen = index === null || !this.bins ? null : Math.min(index, this.bins.length - 1);
    const bin = this.chosen === null ? null : this.bins[this.chosen];
    this.cursor?.setAttribute("width", bin ? this.columns[this.chosen].w : 0);
    if (bin) this.cursor.setAttribute("x", this.columns[this.chosen].x - 0.5);
    this.readout.textContent = bin
      ? `${new Date(bin.at * 1000).toLocaleTimeString()}: ` +
        PARTS.map((part) => `${part} ${milliseconds(bin[part])}`).join(", ") +
        ` ms on average; slowest ${milliseconds(bin.slowest)} ms;` +
        ` ${bin.n} ${bin.n === 1 ? "request" : "requests"}, batches of ${bin.batch.toFixed(1)}`
      : `Milliseconds, mean of each ${milliseconds(this.slice ?? 0)} s. Point at a bar, or use the arrow keys, to read it.`;
  }
}
