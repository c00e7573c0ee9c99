import { radar, signed, tabulate } from "./radar.js";
import { asked } from "./stream.js";

const form = document.querySelector("#ask");
const { tenants, axes } = JSON.parse(form.dataset.known);
const sliders = [...form.querySelectorAll("input[type=range]")];
const status = document.querySelector("#status");
const panes = { base: document.querySelector("#base"), rewritten: document.querySelector("#rewritten") };
const table = document.querySelector("#values");
const show = radar(document.querySelector("#radar .drawing"), axes);
let measured = {};
let running = null;

const field = (name) => form.elements.namedItem(name);
const tenant = () => tenants.find(({ name }) => name === field("tenant").value);

function levels() {
  return Object.fromEntries(sliders.map((slider) => [slider.name, Number(slider.value)]).filter(([, level]) => level !== 0));
}

/** What the sliders ask for: an absolute target is one at once, an offset once the answer's own values are known. */
function wanted() {
  const own = field("mode").value === "target" ? {} : measured.before ?? {};
  const clipped = (level) => Math.max(-1, Math.min(1, level));
  return Object.fromEntries(sliders.map(({ name, value }) => [name, clipped((own[name] ?? 0) + Number(value))]));
}

function draw(vectors) {
  show(vectors);
  tabulate(table, vectors);
}

function moved(slider) {
  slider.nextElementSibling.value = signed(Number(slider.value));
  slider.setAttribute("aria-valuetext", signed(Number(slider.value)));
}

function preview() {
  // What was measured was measured with other sliders: only the base's own values still hold.
  draw({ before: measured.before, target: wanted() });
}

function fill(profile) {
  field("mode").value = profile.mode;
  field("instruction").value = profile.instruction;
  for (const slider of sliders) {
    slider.value = profile.values[slider.name] ?? 0;
    moved(slider);
  }
  preview();
}

function choose() {
  const { profiles, profile, model, allowed } = tenant();
  const options = profiles.map(({ name }) => new Option(name, name, name === profile, name === profile));
  field("profile").replaceChildren(...options);
  field("model").placeholder = model ?? "the base has no default: name one";
  document.querySelector("#allowed").textContent = allowed.length ? `Callers may choose: ${allowed.join(", ")}.` : "Callers may choose no profile.";
  fill(profiles.find(({ name }) => name === profile));
}

function sketch() {
  return {
    tenant: field("tenant").value,
    mode: field("mode").value,
    values: levels(),
    instruction: field("instruction").value,
  };
}

function marked(pane, pieces, changed) {
  const elements = { same: null, kept: "mark", changed };
  pane.replaceChildren(
    ...pieces.flatMap(({ kind, text }) => {
      if (!elements[kind]) return [text];
      const made = document.createElement(elements[kind]);
      made.textContent = text.trimStart();
      return [text.slice(0, text.length - made.textContent.length), made];
    }),
  );
}

function summary(visa) {
  const { before, after } = visa.similarity ?? {};
  const told = [visa.status];
  if (before !== undefined) told.push(`similarity to the target ${signed(before)}${after === undefined ? "" : ` → ${signed(after)}`}`);
  if (visa.consistency !== undefined) told.push(`consistency ${visa.consistency.toFixed(2)}`);
  if (visa.preserved_spans) told.push(`${visa.preserved_spans} verbatim spans kept`);
  if (visa.refused?.length) told.push(`refused: ${visa.refused.join(", ")}`);
  return told.join(" · ");
}

const heard = {
  base: ({ text }) => panes.base.append(text),
  rewritten: ({ text }) => panes.rewritten.append(text),
  visa: (visa) => {
    measured = visa.values ?? {};
    draw(measured.before ? measured : { target: wanted() });
    status.textContent = `Done: ${summary(visa)}.`;
  },
  changes: ({ base, rewritten }) => {
    marked(panes.base, base, "del");
    marked(panes.rewritten, rewritten, "ins");
  },
  error: ({ message }) => {
    status.textContent = `That did not work: ${message}`;
  },
};

async function ask(event) {
  event.preventDefault();
  running?.abort();
  const mine = (running = new AbortController());
  measured = {};
  for (const pane of Object.values(panes)) {
    pane.replaceChildren();
    pane.setAttribute("aria-busy", "true");
  }
  status.textContent = "Asking the base model …";
  const question = { ...sketch(), question: field("question").value, model: field("model").value.trim() };
  try {
    for await (const [name, data] of asked("/ui/api/ask", question, mine.signal)) heard[name]?.(data);
  } catch (error) {
    if (mine.signal.aborted) return;
    heard.error(error);
  }
  for (const pane of Object.values(panes)) pane.removeAttribute("aria-busy");
}

const save = document.querySelector("#save");
const told = document.querySelector("#saved");

async function keep(event) {
  event.preventDefault();
  const name = save.elements.namedItem("name").value.trim();
  const body = { ...sketch(), name };
  const reply = await fetch("/ui/api/profile", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const found = await reply.json().catch(() => ({ error: { message: `status ${reply.status}` } }));
  const problem = document.querySelector("#problem");
  problem.textContent = reply.ok ? "" : found.error.message;
  told.hidden = !reply.ok;
  if (!reply.ok) return;
  for (const part of ["yaml", "permission", "curl", "python"]) {
    const block = document.querySelector(`#${part}`);
    block.textContent = found[part];
    block.closest("[data-part]").hidden = found[part] === "";
  }
  document.querySelector("#file").textContent = tenant().file;
  told.focus();
}

for (const slider of sliders) {
  slider.addEventListener("input", () => {
    moved(slider);
    preview();
  });
}
field("mode").addEventListener("change", preview);
field("tenant").addEventListener("change", choose);
field("profile").addEventListener("change", () => fill(tenant().profiles.find(({ name }) => name === field("profile").value)));
document.querySelector("#reset").addEventListener("click", () => fill({ mode: field("mode").value, values: {}, instruction: "" }));
document.querySelector("#marks").addEventListener("change", (event) => {
  document.querySelector("#answers").classList.toggle("plain", !event.target.checked);
});
form.addEventListener("submit", ask);
save.addEventListener("submit", keep);
choose();
