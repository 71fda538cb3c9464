// A line that moves to the left as values come in.

const SVG = "http://www.w3.org/2000/svg";

/** Number of values that the line shows. */
const KEPT = 240;

/** Minimum time range of the axis, in milliseconds, so that the first values do not jump across the chart. */
const SHORTEST = 60_000;

const MARGIN = { top: 8, right: 8, bottom: 24, left: 0 };

export class Chart {
  #svg;
  #points = [];
  #format;

  /**
   * @param {SVGElement} svg
   * @param {(value: number, digits: number) => string} format formats a value with `digits` digits after the point
   */
  constructor(svg, format) {
    this.#svg = svg;
    this.#format = format;
    new ResizeObserver(() => this.#draw()).observe(svg);
  }

  clear() {
    this.#points = [];
    this.#draw();
  }

  /** Add a value at a time in milliseconds. A value with the same time replaces the last value. */
  add(time, value) {
    if (this.#points.at(-1)?.time === time) this.#points.pop();
    this.#points.push({ time, value });
    this.#points.splice(0, this.#points.length - KEPT);
    this.#draw();
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.#svg;
    this.#svg.replaceChildren();
    this.#svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    if (!this.#points.length || !width) return;
    const values = this.#points.map((point) => point.value);
    const first = this.#points[0].time;
    const last = this.#points.at(-1).time;
    const ticks = niceTicks(Math.min(...values), Math.max(...values));
    const labels = ticks.values.map((value) => this.#format(value, ticks.digits));
    const right = width - MARGIN.right - 8 - 6.8 * Math.max(...labels.map((label) => label.length));
    const bottom = height - MARGIN.bottom;
    const start = Math.min(first, last - SHORTEST);
    const x = (time) => MARGIN.left + ((time - start) / (last - start)) * (right - MARGIN.left);
    const y = (value) => bottom - ((value - ticks.low) / (ticks.high - ticks.low)) * (bottom - MARGIN.top);

    ticks.values.forEach((value, index) => {
      this.#add("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(value), y2: y(value) });
      this.#add("text", { x: right + 8, y: y(value) + 4 }, labels[index]);
    });
    const marks = Math.max(2, Math.min(5, Math.floor(width / 160)));
    for (let mark = 0; mark < marks; mark++) {
      const time = start + ((last - start) * mark) / (marks - 1);
      const anchor = mark === 0 ? "start" : mark === marks - 1 ? "end" : "middle";
      this.#add("text", { x: x(time), y: height - 6, "text-anchor": anchor }, new Date(time).toLocaleTimeString());
    }
    const line = this.#points.map((point) => `${x(point.time).toFixed(1)},${y(point.value).toFixed(1)}`).join(" L");
    this.#add("path", { class: "area", d: `M${line} L${x(last)},${bottom} L${x(first)},${bottom} Z` });
    this.#add("path", { class: "line", d: `M${line}` });
    this.#add("circle", { class: "last", cx: x(last), cy: y(values.at(-1)), r: 4 });
    const minutes = Math.max(1, Math.round((last - first) / 60_000));
    const range = `${this.#format(Math.min(...values), 2)} to ${this.#format(Math.max(...values), 2)}`;
    this.#svg.setAttribute("aria-label", `Values of the last ${minutes} min: ${range}`);
  }

  #add(name, attributes, text = "") {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text;
    this.#svg.append(element);
  }
}

/** Tick values that are round numbers and enclose a range, and the digits after the point that distinguish them. */
function niceTicks(least, most) {
  const span = most - least || Math.abs(most) * 0.001 || 1;
  const rough = span / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const low = Math.floor(least / step) * step;
  const values = [];
  for (let index = 0; index === 0 || values.at(-1) < most || values.length < 2; index++) values.push(low + index * step);
  return { low, high: values.at(-1), values, digits: Math.max(0, -Math.floor(Math.log10(step))) };
}
