import { signed } from "./radar.js";

const ROWS = 100;
const TELL_MS = 10_000;
const table = document.querySelector("#answers tbody");
const state = document.querySelector("#state");
const missed = document.querySelector("#missed");
const pause = document.querySelector("#pause");
const only = document.querySelector("#only");
let untold = 0;
let total = 0;

function cell(row, text, name) {
  const made = document.createElement("td");
  made.textContent = text;
  if (name) made.className = name;
  row.append(made);
  return made;
}

function strongest(values) {
  const named = Object.entries(values ?? {}).filter(([, level]) => Math.abs(level) >= 0.25);
  named.sort((one, other) => Math.abs(other[1]) - Math.abs(one[1]));
  return named.slice(0, 4).map(([name, level]) => `${name.replaceAll("_", " ")} ${signed(level)}`).join(", ") || "–";
}

function add(answer) {
  const row = document.createElement("tr");
  row.dataset.tenant = answer.tenant;
  row.hidden = only.value !== "" && only.value !== answer.tenant;
  const at = new Date(answer.at * 1000);
  const time = document.createElement("time");
  time.dateTime = at.toISOString();
  time.textContent = at.toLocaleTimeString();
  cell(row, "").append(time);
  cell(row, answer.tenant);
  cell(row, answer.experiment ? `${answer.profile} (${answer.experiment})` : answer.profile);
  const status = document.createElement("span");
  status.className = `status ${answer.status.split(":")[0]}`;
  status.textContent = answer.status;
  cell(row, "").append(status);
  const { before, after } = answer.similarity ?? {};
  cell(row, before === undefined ? "–" : `${signed(before)} → ${after === undefined ? "–" : signed(after)}`);
  cell(row, answer.consistency === undefined ? "–" : answer.consistency.toFixed(2), "number");
  cell(row, strongest(answer.values?.after ?? answer.values?.before));
  const id = document.createElement("code");
  id.textContent = answer.request_id;
  cell(row, "").append(id);
  table.prepend(row);
  while (table.rows.length > ROWS) table.lastElementChild.remove();
  document.querySelector("#empty").hidden = true;
  untold += 1;
  total += 1;
}

function told() {
  if (untold > 0) state.textContent = `Watching: ${total} answers so far, ${untold} of them new.`;
  untold = 0;
}

let source = null;

function watch() {
  source = new EventSource("/ui/api/feed");
  source.addEventListener("open", () => { state.textContent = "Watching."; });
  source.addEventListener("error", () => {
    const refused = source.readyState === EventSource.CLOSED;
    state.textContent = refused ? "The feed cannot be watched now; reload this page later." : "The connection is lost; trying again.";
  });
  source.addEventListener("answer", (event) => add(JSON.parse(event.data)));
  source.addEventListener("missed", (event) => {
    missed.textContent = `${JSON.parse(event.data).count} answers came faster than this page could show them.`;
  });
}

pause.addEventListener("click", () => {
  const paused = source !== null;
  if (paused) source.close();
  source = null;
  pause.setAttribute("aria-pressed", String(paused));
  if (paused) state.textContent = "Paused: what comes now is not shown.";
  else watch();
});
only.addEventListener("change", () => {
  for (const row of table.rows) row.hidden = only.value !== "" && only.value !== row.dataset.tenant;
});
setInterval(told, TELL_MS);
watch();
