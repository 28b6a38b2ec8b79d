// Draws every figure of the page from the JSON that stands inside it.
for (const place of document.querySelectorAll(".drawing")) {
  const figure = JSON.parse(place.querySelector("script").textContent);
  const canvas = place.querySelector(".canvas");
  const options = { responsive: true, displaylogo: false };
  Plotly.newPlot(canvas, figure.data, figure.layout, options).then(() => {
    if (figure.frames) Plotly.addFrames(canvas, figure.frames);
  });
}
