// The report's chart, its table and the view of a cell. Strangers' text is only ever set as text.
"use strict";
{
const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");
const labels = Object.keys(data.looks);
// plotly reads a little HTML in names and hover texts
const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const colourOf = (label) => data.looks[label][dark.matches ? "dark" : "colour"];
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);

function make(tag, content = "", attributes = {}) {
  const element = document.createElement(tag);
  element.append(...[content].flat());
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function layout(more) {
  const axis = { gridcolor: style("--rule"), linecolor: style("--faint"), zeroline: false, automargin: true };
  return {
    paper_bgcolor: style("--ground"), plot_bgcolor: style("--ground"), showlegend: false, hovermode: "closest",
    font: { family: "system-ui, sans-serif", size: 13, color: style("--ink") },
    hoverlabel: { font: { size: 13 }, align: "left" }, margin: { l: 60, r: 20, t: 30, b: 50 },
    xaxis: { ...axis, ...more.xaxis }, yaxis: { ...axis, ...more.yaxis },
  };
}
const options = {  // the buttons are named one by one: plotly offers some that send data away
  responsive: true, displaylogo: false, displayModeBar: true,
  modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
};

// ---- chart ----------------------------------------------------------------------------------------------
const hidden = new Set();

function drawChart() {
  const metric = data.metrics[find("metric").value], setting = data.settings[find("setting").value];
  const failures = [], traces = [], above = {};
  let top = 0;
  for (const [label, points] of setting.lines) {
    if (hidden.has(label)) continue;
    const look = data.looks[label], color = colourOf(label);
    const values = points.map(([, cell]) => metric.values[cell]);
    top = Math.max(top, ...values.filter((value) => value > 0));
    const bounds = points.map(([, cell]) => (metric === data.metrics.time_s && data.cells[cell].bounds) || null);
    traces.push({
      x: points.map(([step]) => step), y: values.map((value) => (value > 0 ? value : null)),
      mode: "lines+markers", name: plain(label), line: { color, dash: look.dash, width: 2 },
      marker: { color, symbol: look.symbol, size: 8 }, customdata: points.map(([, cell]) => cell),
      error_y: {
        type: "data", symmetric: false, color, thickness: 1,
        array: bounds.map((bound, n) => (bound ? bound[1] - values[n] : 0)),
        arrayminus: bounds.map((bound, n) => (bound ? values[n] - bound[0] : 0)),
      },
      text: points.map(([, cell]) => hoverText(label, cell, metric)), hovertemplate: "%{text}<extra></extra>",
    });
    for (const [step, cell] of points) {
      if (data.cells[cell].status !== "ok") failures.push([step, cell, label, (above[step] = (above[step] ?? 0) + 1)]);
    }
  }
  traces.push({
    x: failures.map(([step]) => step), y: failures.map(([, , , row]) => top * 1.4 ** row), mode: "markers",
    marker: { color: failures.map(([, , label]) => colourOf(label)), symbol: "x-thin-open", size: 11, line: { width: 2.5 } },
    customdata: failures.map(([, cell]) => cell), hovertemplate: "%{text}<extra></extra>",
    text: failures.map(([, cell, label]) => hoverText(label, cell, metric)),
  });
  const [steps, names] = setting.ticks, [values, texts] = metric.ticks;
  Plotly.react("chart", traces, layout({
    xaxis: { type: "log", tickvals: steps, ticktext: names, title: { text: setting.along } },
    yaxis: { type: "log", tickvals: values, ticktext: texts, title: { text: metric.title } },
  }), options);
}

function hoverText(label, cell, metric) {
  const { status, reason, interval } = data.cells[cell];
  const number = metric.texts[cell] || "no number";
  const width = metric === data.metrics.time_s && interval ? ` (${interval})` : "";
  return `${plain(label)}<br>${status === "ok" ? number + width : plain(`${status}: ${reason}`.slice(0, 160))}`;
}

function startChart() {
  if (!data.settings.length || !Object.keys(data.metrics).length) return;
  for (const [name, { title }] of Object.entries(data.metrics)) find("metric").append(make("option", title, { value: name }));
  data.settings.forEach(({ along, title }, n) => find("setting").append(make("option", `by ${along}: ${title}`, { value: n })));
  for (const label of labels) {
    const box = make("input", "", { type: "checkbox" });
    box.checked = true;
    box.addEventListener("change", () => { hidden[box.checked ? "delete" : "add"](label); drawChart(); });
    const swatch = make("span", "", { class: "swatch" });
    find("shown").append(make("label", [box, swatch, label]));
    const paint = () => { swatch.style.borderColor = colourOf(label); };
    paint();
    dark.addEventListener("change", paint);
  }
  find("explore").hidden = find("to-explore").hidden = false;
  for (const id of ["metric", "setting"]) find(id).addEventListener("change", drawChart);
  dark.addEventListener("change", drawChart);
  drawChart();
  find("chart").on("plotly_click", ({ points: [point] }) => openCell(point.customdata));
}

// ---- table ----------------------------------------------------------------------------------------------
const PAGE = 100;
const rows = [...find("table").tBodies[0].rows].map((element, cell) => (
  { element, cell, text: element.textContent.toLowerCase(), keys: data.keys[cell] }));
let order = [...rows], all = rows.length <= PAGE, sorted = { column: -1, up: true };

function showRows() {
  const words = find("search").value.toLowerCase().split(/\s+/);
  const chosen = [...find("filters").querySelectorAll("select")].filter((select) => select.value);
  let matching = 0;
  for (const row of order) {
    const fits = words.every((word) => row.text.includes(word))
      && chosen.every((select) => row.element.cells[select.dataset.column].textContent === select.value);
    matching += fits;
    row.element.hidden = !fits || (!all && matching > PAGE);
  }
  const shown = all ? matching : Math.min(matching, PAGE);
  find("count").textContent = `${matching} of ${rows.length} cells` + (shown < matching ? `, the first ${shown} shown` : "");
  find("more").hidden = all || matching <= PAGE;
}

function sortBy(column) {
  sorted = { column, up: sorted.column === column ? !sorted.up : true };
  const sign = sorted.up ? 1 : -1;
  const none = (key) => key === null || key === "";
  order.sort(({ keys: { [column]: a } }, { keys: { [column]: b } }) => {
    if (none(a) || none(b)) return none(a) - none(b);
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
  });
  find("table").tBodies[0].append(...order.map(({ element }) => element));
  [...find("table").tHead.rows[0].cells].forEach((head, n) => {
    if (n === column) head.setAttribute("aria-sort", sorted.up ? "ascending" : "descending");
    else head.removeAttribute("aria-sort");
  });
  showRows();
}

function startTable() {
  [...find("table").tHead.rows[0].cells].forEach((head, column) => {
    const button = make("button", head.textContent, { type: "button", class: "sort" });
    button.addEventListener("click", () => sortBy(column));
    head.replaceChildren(button);
  });
  for (const { element, cell } of rows) {
    const button = make("button", element.cells[0].textContent, { type: "button", class: "open" });
    element.cells[0].replaceChildren(button);
    element.addEventListener("click", () => openCell(cell));
  }
  find("table").classList.add("live");
  find("filters").hidden = false;
  find("filters").addEventListener("input", showRows);
  find("more").addEventListener("click", () => { all = true; showRows(); });
  showRows();
}

// ---- one cell -------------------------------------------------------------------------------------------
function facts(pairs) {
  const kept = pairs.filter(([, value]) => value !== "");
  return make("table", make("tbody", kept.map(([name, value]) => make("tr", [make("th", name, { scope: "row" }), make("td", value)]))));
}

function part(title, ...content) {
  return [make("h3", title), ...content];
}

function openCell(cell) {
  const about = data.cells[cell], label = rows[cell].element.cells[0].textContent;
  const size = ["seq", "dim"].map((axis) => about.axes[data.axes.indexOf(axis)]);
  find("cell-title").textContent = `${label}, length ${size[0]}, width ${size[1]}`;
  const cause = data.cells.findIndex(({ id }) => id === about.cause);
  const toCause = make("button", about.cause, { type: "button", class: "open" });
  toCause.addEventListener("click", () => openCell(cause));
  const body = [
    facts([
      ["Status", about.status], ["Stage", about.stage], ["Reason", about.reason],
      ["Caused by", about.cause && cause >= 0 ? toCause : about.cause],
      ...about.flags.map((flag) => [`Flag ${flag}`, data.flags[flag]]),
    ]),
    ...part("Command that repeats it", make("pre", about.command, { id: "command", tabindex: 0 })),
  ];
  const samples = make("div", "", { class: "samples", role: "img", "aria-label": "Time of each pass; the list below holds the numbers" });
  if (about.status === "ok") {
    const [time, ...others] = data.numbers.map((title, n) => [title, about.numbers[n]]);
    body.push(...part("Numbers", facts([time, ["95 % interval", about.interval], ...others])));
  }
  if (about.samples.length) {
    const lists = about.samples.map((group, n) => [`Process ${n + 1}`, group.join(", ")]);
    body.push(...part("Samples: seconds a pass, by process", samples, facts(lists)));
  }
  body.push(...part("Setting", facts(data.axes.map((axis, n) => [axis, about.axes[n]]))));
  body.push(...part("Measured", facts([
    ["On", data.environment.sentence], ["Environment", data.environment.id], ["Source", about.source], ["Cell", about.id],
    ...Object.entries(about.path).map(([what, which]) => [`Path of ${what}`, which]),
    ...about.visits.map((visit) => [`Visit ${visit.round}`, said(visit)]),
  ])));
  if (about.log) body.push(...part("Log", make("pre", about.log, { tabindex: 0 })));
  find("cell-body").replaceChildren(...body);
  if (!find("cell").open) find("cell").showModal();
  find("cell").scrollTop = 0;
  if (about.samples.length) drawSamples(samples, about.samples);
}

function said({ started, took, process, first, faults, others, status }) {
  return [started, status, took && `took ${took}`, process && `by ${process}`, first && `first call ${first}`,
    faults && `${faults} page faults a pass`, others && `${others} cores busy elsewhere`].filter(Boolean).join(" · ");
}

function drawSamples(place, groups) {
  const traces = groups.map((group, n) => (
    { x: group.map((_, pass) => pass + 1), y: group, mode: "markers", name: `process ${n + 1}`, marker: { symbol: n, size: 8 } }));
  Plotly.newPlot(place, traces, {
    ...layout({ xaxis: { title: { text: "pass" } }, yaxis: { ticksuffix: "s", exponentformat: "SI" } }),
    showlegend: groups.length > 1,
  }, { ...options, displayModeBar: false });
}

startTable();
startChart();
}
