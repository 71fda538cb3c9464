// Formats durations and times as text, and clones and fills parts of the document.

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

/** A duration in its one or two largest units: "4.5 s", "45 s", "3 min 5 s", "2 h 5 min". */
export function duration(seconds) {
  if (seconds < 10) {
    return `${Math.max(seconds, 0).toFixed(1)} s`;
  }
  let rest = Math.floor(seconds);
  const first = UNITS.findIndex(([, size]) => rest >= size);
  return UNITS.slice(first, first + 2)
    .map(([unit, size]) => {
      const count = Math.floor(rest / size);
      rest -= count * size;
      return count ? `${count} ${unit}` : "";
    })
    .filter(Boolean)
    .join(" ");
}

/** A time of day in UTC, with the date unless it is the date of `now`. Both are milliseconds since the epoch. */
export function clock(time, now) {
  if (Number.isNaN(time)) {
    return "an unknown time";
  }
  const [date, day] = new Date(time).toISOString().split("T");
  return `${date === new Date(now).toISOString().slice(0, 10) ? "" : `${date} `}${day.slice(0, 8)} UTC`;
}

/** A whole number with commas: "1,000,000". */
export function count(number) {
  return number.toLocaleString("en");
}

/** The elements of a clone of the template, by the value of `data-part`; `root` is the clone itself. */
export function clone(template) {
  return partsOf(document.getElementById(template).content.firstElementChild.cloneNode(true));
}

/** The elements below `root` that have a `data-part`, by its value, and `root` itself. */
export function partsOf(root) {
  const parts = { root };
  for (const element of root.querySelectorAll("[data-part]")) {
    parts[element.dataset.part] = element;
  }
  return parts;
}

/** Give an element a text, and hide it if the text is empty. An unchanged element is not touched. */
export function write(element, text) {
  set(element, "textContent", text);
  element.hidden = text === "";
}

/**
 * Give a container one element for each item. Existing elements are used again, so that a selection and a tooltip stay.
 */
export function fill(container, items, make, update) {
  while (container.children.length > items.length) {
    container.lastElementChild.remove();
  }
  items.forEach((item, index) => update(container.children[index] ?? container.appendChild(make()), item));
}

/** Set a property, unless it has that value already. */
export function set(element, name, value) {
  if (element[name] !== value) {
    element[name] = value;
  }
}
