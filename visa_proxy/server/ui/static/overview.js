import { radar } from "./radar.js";

for (const figure of document.querySelectorAll("figure[data-vectors]")) {
  const show = radar(figure.querySelector(".drawing"), JSON.parse(figure.dataset.axes));
  show(JSON.parse(figure.dataset.vectors));
}
