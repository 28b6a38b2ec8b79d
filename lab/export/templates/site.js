// Draws every figure of the page from the JSON that stands inside it. Its sliders and menus become
// controls of the page, because plotly's own cannot be reached by keyboard nor read aloud.
const METHODS = ["animate", "relayout", "restyle", "update"];
const plain = (text) => new DOMParser().parseFromString(text, "text/html").body.textContent;
const make = (tag, properties) => Object.assign(document.createElement(tag), properties);

function choose(canvas, { method, args }) {
  if (METHODS.includes(method)) Plotly[method](canvas, ...args);
}

function labelled(name, ...fields) {
  const label = make("label", { textContent: `${name} ` });
  label.append(...fields);
  return label;
}

function slider(canvas, { steps, active = 0, currentvalue = {} }) {
  const shown = make("output", { textContent: plain((steps[active] || steps[0]).label) });
  const range = make("input", { type: "range", max: steps.length - 1, value: active });
  range.setAttribute("aria-valuetext", shown.textContent);
  range.addEventListener("input", () => {
    choose(canvas, steps[range.value]);
    shown.textContent = plain(steps[range.value].label);
    range.setAttribute("aria-valuetext", shown.textContent);
  });
  return labelled(plain(currentvalue.prefix || "step").replace(/:\s*$/, ""), range, shown);
}

function menu(canvas, { type, buttons, active = 0 }) {
  if (type === "buttons") {
    return buttons.map((one) => {
      const button = make("button", { type: "button", textContent: plain(one.label) });
      button.addEventListener("click", () => choose(canvas, one));
      return button;
    });
  }
  const select = make("select", {});
  select.append(...buttons.map(({ label }) => make("option", { textContent: plain(label) })));
  select.selectedIndex = active;
  select.addEventListener("change", () => choose(canvas, buttons[select.selectedIndex]));
  return [labelled(buttons[0].method === "update" ? "colour by" : "show", select)];
}

for (const place of document.querySelectorAll(".drawing")) {
  const { data, layout, frames } = JSON.parse(place.querySelector("script").textContent);
  const canvas = place.querySelector(".canvas");
  const { sliders = [], updatemenus = [], ...rest } = layout || {};
  const slides = sliders.filter(({ steps }) => steps?.length);
  const menus = updatemenus.filter(({ buttons }) => buttons?.length);
  const controls = make("div", { className: "controls" });
  controls.append(
    ...menus.flatMap((one) => menu(canvas, one)),
    ...slides.map((one) => slider(canvas, one)),
  );
  canvas.before(controls);
  const above = [...slides, ...menus].some(({ y = 0 }) => y >= 1); // they stood in the margin
  if (above && rest.margin?.t) rest.margin.t = Math.min(rest.margin.t, 50);
  const options = { responsive: true, displaylogo: false };
  Plotly.newPlot(canvas, data, rest, options).then(() => {
    if (frames) Plotly.addFrames(canvas, frames);
  });
}
