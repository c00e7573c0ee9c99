// Value vectors on the circumplex: neighbours are compatible, opposites conflict. The centre is -1, the ring in the middle 0, outside +1.

const SVG = "http://www.w3.org/2000/svg";
const SIZE = 400;
const REACH = 140;
const LEVELS = [-1, -0.5, 0, 0.5, 1];
export const KINDS = ["before", "target", "after"];

function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function place(index, count, level) {
  const angle = (2 * Math.PI * index) / count - Math.PI / 2;
  const radius = (REACH * (level + 1)) / 2;
  return [SIZE / 2 + radius * Math.cos(angle), SIZE / 2 + radius * Math.sin(angle)];
}

function path(levels) {
  const points = levels.map((level, index) => place(index, levels.length, level).map((value) => value.toFixed(1)).join(","));
  return `M${points.join("L")}Z`;
}

function label(title, index, count) {
  const [x, y] = place(index, count, 1.14);
  const across = Math.abs(x - SIZE / 2) < 8 ? "middle" : x > SIZE / 2 ? "start" : "end";
  return element("text", { x, y, "text-anchor": across, "dominant-baseline": "middle" }, title);
}

/** A radar in `holder`; `axes`: [{name, title}] around the circle. The value is a function that shows {before?, target?, after?}. */
export function radar(holder, axes) {
  const picture = element("svg", { class: "radar", viewBox: `-45 25 ${SIZE + 90} ${SIZE - 50}`, role: "img" });
  const described = element("title", {}, "");
  picture.append(described);
  for (const level of LEVELS.slice(1)) {
    const ring = axes.map(() => level);
    picture.append(element("path", { class: level === 0 ? "ring zero" : "ring", d: path(ring) }));
  }
  axes.forEach((axis, index) => {
    const [x, y] = place(index, axes.length, 1);
    picture.append(element("line", { class: "spoke", x1: SIZE / 2, y1: SIZE / 2, x2: x, y2: y }), label(axis.title, index, axes.length));
  });
  for (const level of [-1, 0, 1]) {
    const [x, y] = place(0.5, axes.length, level);
    picture.append(element("text", { class: "scale", x: x + 3, y: y - 3, "aria-hidden": "true" }, level > 0 ? `+${level}` : `${level}`));
  }
  const lines = {};
  for (const kind of KINDS) {
    lines[kind] = element("path", { class: `line ${kind}`, "data-kind": kind, visibility: "hidden", d: path(axes.map(() => 0)) });
    picture.append(lines[kind]);
  }
  holder.replaceChildren(picture);

  return (vectors) => {
    const told = [];
    for (const kind of KINDS) {
      const vector = vectors[kind];
      lines[kind].setAttribute("visibility", vector ? "visible" : "hidden");
      if (!vector) continue;
      lines[kind].setAttribute("d", path(axes.map(({ name }) => vector[name] ?? 0)));
      const strongest = axes.filter(({ name }) => Math.abs(vector[name] ?? 0) >= 0.25).map(({ name, title }) => `${title} ${signed(vector[name])}`);
      told.push(`${kind}: ${strongest.join(", ") || "nothing marked"}`);
    }
    described.textContent = `Values on the circumplex. ${told.join(". ")}`;
  };
}

export function signed(level) {
  const rounded = Math.round(level * 100) / 100;
  return rounded > 0 ? `+${rounded}` : `${rounded}`.replace("-", "−");
}

/** Fills the cells of a table whose rows have data-value and whose cells data-kind. */
export function tabulate(table, vectors) {
  for (const row of table.querySelectorAll("tr[data-value]")) {
    for (const cell of row.querySelectorAll("td[data-kind]")) {
      const level = vectors[cell.dataset.kind]?.[row.dataset.value];
      cell.textContent = level === undefined ? "–" : signed(level);
    }
  }
}
