// What report.html does: sortable tables, charts with values under the pointer, and the viewer of the images.
// The page is one file without a network, so this is plain JavaScript; its data is made by viewer.py.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const CLEAN = "clean";
const DASHES = ["", "7 3", "7 3 2 3", "2 3"];
const FALSE_ALARM = -1;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  return filled(made, attributes, children);
}

function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  return filled(made, attributes, children);
}

function filled(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const byId = (id) => document.getElementById(id);
const corruptions = [...new Set(data.conditions.map((each) => each.corruption))].filter((name) => name !== CLEAN);
const words = (name) => name.replaceAll("_", " ");

/** Numbers of the conditions of a corruption, the clean one first. */
function under(corruption) {
  const wanted = [CLEAN, corruption];
  return data.conditions.map((_, i) => i).filter((i) => wanted.includes(data.conditions[i].corruption));
}

/** What is chosen of some names; without a choice nothing is shown. */
function choice(label, names, changed) {
  const select = element("select", {}, ...names.map((name, i) => element("option", { value: i }, words(name))));
  select.addEventListener("change", () => changed(Number(select.value)));
  const shown = element("label", {}, `${label} `, select);
  shown.hidden = names.length < 2;
  return shown;
}

// the look -----------------------------------------------------------------------------------------------------------

function setScheme(scheme) {
  document.documentElement.style.colorScheme = scheme;
  byId("scheme").textContent = scheme === "dark" ? "light" : "dark";
}

function prepareScheme() {
  setScheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  byId("scheme").addEventListener("click", () => setScheme(byId("scheme").textContent));
}

// tables -------------------------------------------------------------------------------------------------------------

/** The number that a cell begins with; cells without one come last. */
function valueOf(row, column) {
  const text = row.cells[column]?.textContent.trim() ?? "";
  const number = parseFloat(text);
  return { text, number: Number.isNaN(number) ? null : number };
}

function sort(table, column, descending) {
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, ...valueOf(row, column) }));
  const numeric = rows.some((each) => each.number !== null);
  const sign = descending ? -1 : 1;
  rows.sort((a, b) => {
    if (!numeric) return sign * a.text.localeCompare(b.text, undefined, { numeric: true });
    if (a.number === null || b.number === null) return (a.number === null) - (b.number === null);
    return sign * (a.number - b.number);
  });
  table.tBodies[0].append(...rows.map((each) => each.row));
}

function prepareTables() {
  for (const table of document.querySelectorAll("table")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = element("button", { type: "button", title: "sort" }, ...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const descending = head.getAttribute("aria-sort") !== "descending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        sort(table, column, descending);
      });
    });
  }
}

// charts -------------------------------------------------------------------------------------------------------------

const WIDTH = 420, HEIGHT = 250, LEFT = 44, RIGHT = 10, TOP = 26, BOTTOM = 34;

/** Axes with ticks: what places a value in the chart. */
function frame(title, xs, top, xLabel, ticks) {
  const svg = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", tabindex: 0, role: "img" });
  svg.append(drawn("title", {}, title));
  const [low, high] = [Math.min(...xs), Math.max(...xs)];
  const x = (value) => LEFT + (high > low ? (value - low) / (high - low) : 0.5) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - TOP - BOTTOM);
  const steps = [0, 0.25, 0.5, 0.75, 1].map((part) => part * top);
  for (const value of steps) {
    svg.append(drawn("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "rule" }));
    svg.append(drawn("text", { x: LEFT - 5, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(2)));
  }
  for (const [value, text] of ticks) {
    svg.append(drawn("text", { x: x(value), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, text));
  }
  svg.append(drawn("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, xLabel));
  svg.append(drawn("text", { x: LEFT, y: 15, class: "head" }, title));
  return { svg, x, y };
}

/** A round number at or above a value, so that four steps are too, of two digits. */
function ceiling(value) {
  return [0.04, 0.12, 0.2, 0.4, 0.6, 0.8].find((each) => value <= each) ?? Math.max(1, Math.ceil(value));
}

/**
 * A chart that says its values where the pointer, a finger or the arrow keys are.
 * @param places what stands along x: {x, text}
 * @param lines for each place the lines of what is said: [{colour, text}]
 */
function telling({ svg, x }, places, lines) {
  const mark = drawn("line", { y1: TOP, y2: HEIGHT - BOTTOM, class: "mark", visibility: "hidden" });
  const said = element("div", { class: "said", role: "status" });
  said.hidden = true;
  svg.append(mark);
  const box = element("div", { class: "telling" }, svg, said);
  let at = 0;
  const show = (place) => {
    at = Math.max(0, Math.min(places.length - 1, place));
    mark.setAttribute("x1", x(places[at].x));
    mark.setAttribute("x2", x(places[at].x));
    mark.setAttribute("visibility", "visible");
    const rows = lines(at).map(({ colour, text }) =>
      element("div", {}, element("i", colour ? { style: `background:${colour}` } : {}), text));
    said.replaceChildren(element("b", {}, places[at].text), ...rows);
    said.hidden = false;
    said.style.left = x(places[at].x) > WIDTH / 2 ? "4%" : "";
    said.style.right = x(places[at].x) > WIDTH / 2 ? "" : "4%";
  };
  const hide = () => {
    said.hidden = true;
    mark.setAttribute("visibility", "hidden");
  };
  const follow = (event) => {
    const bounds = svg.getBoundingClientRect();
    const pointer = ((event.clientX - bounds.left) / bounds.width) * WIDTH;
    const distances = places.map((each) => Math.abs(x(each.x) - pointer));
    show(distances.indexOf(Math.min(...distances)));
  };
  if (places.length) {
    svg.addEventListener("pointermove", follow);
    svg.addEventListener("pointerdown", follow);
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("focus", () => show(at));
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) {
        event.preventDefault();
        show(at + step);
      }
    });
  }
  return box;
}

function line(points, look) {
  return drawn("polyline", { points: points.map((point) => point.join(",")).join(" "), fill: "none", ...look });
}

/** The colours of pictures; black is that of the text, which a dark page has in white. */
const colour = (n) => data.colours[n % data.colours.length].replace("#000000", "currentColor");

const modelLook = (m) => ({
  stroke: colour(data.looks[m][0]),
  "stroke-dasharray": DASHES[data.looks[m][1] % DASHES.length],
  "stroke-width": 2,
});

/** From dark to light, as far as both backgrounds bear it. */
const strengthLook = (n, count) => ({
  stroke: `hsl(${260 - (190 * n) / Math.max(1, count - 1)} 75% 48%)`,
  "stroke-dasharray": DASHES[n % DASHES.length],
  "stroke-width": 2,
});

const ticksOf = (numbers) => numbers.map((i) => [data.conditions[i].x, String(data.conditions[i].x)]);
const fixed = (value) => value.toFixed(3);

function legend(host, entries) {
  host.replaceChildren(...entries.map(({ look, text }) => {
    const sample = drawn("svg", { viewBox: "0 0 26 8", class: "sample" }, line([[0, 4], [26, 4]], look));
    return element("span", {}, sample, text);
  }));
}

/** AP or AP50 of every model over the strength of one corruption, with the bands of the bootstrap. */
function curve(corruption, metric, top) {
  const numbers = under(corruption);
  const places = numbers.map((i) => ({ x: data.conditions[i].x, text: data.conditions[i].name }));
  const unit = numbers.length ? data.conditions[numbers[numbers.length - 1]].unit : "";
  const chart = frame(words(corruption), places.map((each) => each.x), top, unit, ticksOf(numbers));
  const spoken = places.map(() => []);
  data.models.forEach((model, m) => {
    const known = numbers.map((i, place) => ({ place, values: data.cells[m][i]?.[metric] })).filter((each) => each.values);
    const at = ({ place }, value) => [chart.x(places[place].x), chart.y(value)];
    const banded = known.filter((each) => each.values.length === 3);
    const band = [...banded.map((each) => at(each, each.values[2])), ...banded.reverse().map((each) => at(each, each.values[1]))];
    const look = modelLook(m);
    if (band.length > 2) chart.svg.append(drawn("polygon", { points: band.join(" "), fill: look.stroke, opacity: 0.15 }));
    chart.svg.append(line(known.map((each) => at(each, each.values[0])), look));
    for (const each of known) {
      const [cx, cy] = at(each, each.values[0]);
      chart.svg.append(drawn("circle", { cx, cy, r: 3, fill: look.stroke }));
      const [value, low, high] = each.values;
      const interval = low === undefined ? "" : ` [${fixed(low)}, ${fixed(high)}]`;
      spoken[each.place].push({ colour: look.stroke, text: `${model} ${fixed(value)}${interval}` });
    }
  });
  return telling(chart, places, (place) => spoken[place]);
}

function prepareCurves() {
  const names = corruptions.length ? corruptions : [CLEAN];
  const metrics = ["AP", "AP50"];
  const draw = (chosen) => {
    const values = data.cells.flat().map((cell) => cell?.[metrics[chosen]]).filter(Boolean).flat();
    const top = ceiling(Math.max(0, ...values));
    byId("curve-charts").replaceChildren(...names.map((name) => curve(name, metrics[chosen], top)));
  };
  byId("curve-controls").append(choice("score", metrics, draw));
  legend(byId("curve-legend"), data.models.map((text, m) => ({ look: modelLook(m), text })));
  draw(0);
}

/** What each type of error costs one model, stacked, over the strength of a corruption. */
function stack(m, corruption, top) {
  const numbers = under(corruption).filter((i) => data.cells[m][i]?.errors);
  const places = numbers.map((i, place) => ({ x: place, text: data.conditions[i].name }));
  const ticks = numbers.map((i, place) => [place, data.conditions[i].corruption === CLEAN ? CLEAN : String(data.conditions[i].x)]);
  const chart = frame(data.models[m], [-0.6, Math.max(numbers.length, 4) - 0.4], top, `${words(corruption)}, AP50 gained by each type alone`, ticks);
  const wide = (chart.x(1) - chart.x(0)) * 0.8;
  numbers.forEach((i, place) => {
    let below = 0;
    data.cells[m][i].errors.forEach((value, type) => {
      const height = chart.y(below) - chart.y(below + value);
      const bar = { x: chart.x(place) - wide / 2, y: chart.y(below + value), width: wide, height, fill: data.colours[type], class: "bar" };
      chart.svg.append(drawn("rect", bar));
      below += value;
    });
  });
  return telling(chart, places, (place) => data.errors.map((name, type) => (
    { colour: data.colours[type], text: `${name} +${fixed(data.cells[m][numbers[place]].errors[type])}` }
  )).reverse());
}

/** Lines of one model, one for each strength of a corruption, over something from `low` to 1; perhaps a diagonal. */
function strengths(m, corruption, low, label, pointsOf, diagonal = false) {
  const all = under(corruption), numbers = all.filter((i) => pointsOf(data.cells[m][i]));
  const chart = frame(data.models[m], [low, 1], 1, label, [low, 0.5, 1].map((value) => [value, String(value)]));
  const looks = numbers.map((i) => strengthLook(all.indexOf(i), all.length));
  if (diagonal) {
    const ends = { x1: chart.x(low), y1: chart.y(low), x2: chart.x(1), y2: chart.y(1) };
    chart.svg.append(drawn("line", { ...ends, class: "mark" }));
  }
  numbers.forEach((i, n) => {
    const points = pointsOf(data.cells[m][i]).map(([x, y]) => [chart.x(x), chart.y(y)]);
    chart.svg.append(line(points, looks[n]));
  });
  const places = Array.from({ length: 21 }, (_, n) => ({ x: low + ((1 - low) * n) / 20, text: (low + ((1 - low) * n) / 20).toFixed(2) }));
  return telling(chart, numbers.length ? places : [], (place) => numbers.map((i, n) => {
    const points = pointsOf(data.cells[m][i]);
    const nearest = points.reduce((a, b) => (Math.abs(b[0] - places[place].x) < Math.abs(a[0] - places[place].x) ? b : a), [Infinity, 0]);
    const value = Number.isFinite(nearest[0]) ? fixed(nearest[1]) : "-";
    return { colour: looks[n].stroke, text: `${data.conditions[i].name} ${value}` };
  }));
}

const precisionOf = (cell) => cell?.precision?.map((value, n) => [n / 100, value]);
const hitsOf = (cell) => cell?.bins?.filter((bin) => bin[2] >= data.fewest);

const strengthsLegend = (corruption) => under(corruption).map((i, n, all) => (
  { look: strengthLook(n, all.length), text: data.conditions[i].name }
));
const typesLegend = () => data.errors.map((text, n) => ({ look: { stroke: data.colours[n], "stroke-width": 8 }, text }));

/** A section with a chart for each model, a legend, and a choice among the corruptions. */
function prepareDiagnosis(id, chart, entries) {
  const names = corruptions.length ? corruptions : [CLEAN];
  const draw = (n) => {
    legend(byId(`${id}-legend`), entries(names[n]));
    byId(`${id}-charts`).replaceChildren(...data.models.map((_, m) => chart(m, names[n])));
  };
  byId(`${id}-controls`).append(choice("corruption", names, draw));
  draw(0);
}

function prepareErrors() {
  const sums = data.cells.flat().map((cell) => (cell?.errors ?? []).reduce((a, b) => a + b, 0));
  const top = ceiling(Math.max(0, ...sums));
  prepareDiagnosis("errors", (m, corruption) => stack(m, corruption, top), typesLegend);
  prepareDiagnosis("precision", (m, corruption) => strengths(m, corruption, 0, "recall", precisionOf), strengthsLegend);
  prepareDiagnosis("reliability", (m, corruption) => {
    return strengths(m, corruption, data.leastScore, "score; share of hits upwards", hitsOf, true);
  }, strengthsLegend);
}

// the viewer ---------------------------------------------------------------------------------------------------------

/** What viewer.py writes in the order of a list. */
const named = {
  object: ([kind, x, y, width, height, counts, polygons, points]) => (
    { class: kind, box: [x, y, width, height], counts: Boolean(counts), polygons, points }),
  detection: ([kind, x, y, width, height, thousandths, of, polygons, points]) => (
    { class: kind, box: [x, y, width, height], score: thousandths / 1000, of, polygons, points }),
};
for (const image of data.images) {
  image.objects = image.objects.map(named.object);
  image.found = image.found.map((row) => row.map((cell) => cell && cell.map(named.detection)));
}

const view = { image: 0, corruption: 0, strength: 0, least: 0.25, only: -1, large: -1 };

/** What a model makes of an image: detections by what they are, and objects that nobody finds. */
function verdict(image, m, i) {
  const of = (each) => view.only < 0 || each.class === view.only;
  const rows = (image.found[m][i] ?? []).filter((each) => each.score >= view.least);
  const taken = new Set(rows.map((each) => each.of).filter((number) => number >= 0));
  return {
    known: image.found[m][i] !== null,
    found: rows.filter((each) => each.of >= 0 && of(each)),
    alarms: rows.filter((each) => each.of === FALSE_ALARM && of(each)),
    missed: image.objects.filter((each, number) => each.counts && !taken.has(number) && of(each)),
    objects: image.objects.filter(of),
  };
}

/** Whether the models find other objects, or give other numbers of false alarms. */
function disagree(image, i) {
  const told = data.models.map((_, m) => {
    const { known, found, alarms } = verdict(image, m, i);
    return known ? JSON.stringify([found.map((each) => each.of).sort((a, b) => a - b), alarms.length]) : null;
  });
  return new Set(told.filter((each) => each !== null)).size > 1;
}

const strengthsOf = () => (corruptions.length ? under(corruptions[view.corruption]) : under(CLEAN));
const condition = () => strengthsOf()[view.strength];
const listed = () => data.images.map((_, n) => n).filter((n) => !byId("differ").checked || disagree(data.images[n], condition()));

function outlineOf(each, look) {
  const shapes = [];
  const [x, y, width, height] = each.box;
  if (data.framed) shapes.push(drawn("rect", { x, y, width, height, ...look }));
  for (const polygon of each.polygons ?? []) shapes.push(drawn("polygon", { points: polygon.join(" "), ...look }));
  for (let n = 0; n < (each.points ?? []).length; n += 2) {
    shapes.push(drawn("circle", { cx: each.points[n], cy: each.points[n + 1], r: "0.8%", ...look }));
  }
  return shapes;
}

function labelOf(each, unit, kind) {
  const text = data.classes[each.class] + (each.score === undefined ? "" : ` ${each.score.toFixed(2)}`);
  const [x, y] = each.box;
  const above = y > 13 * unit;
  return drawn("text", { x: x + 2 * unit, y: above ? y - 3 * unit : y + 11 * unit, "font-size": 11 * unit, class: kind }, text);
}

function panel(image, m, i) {
  const told = verdict(image, m, i);
  const [width, height] = image.size;
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  const unit = width / (view.large === m ? 900 : 420); // pixels of the image for one of the screen, about
  const kinds = { truth: told.objects, found: told.found, missed: told.missed, alarms: told.alarms };
  if (!data.labelled) Object.assign(kinds, { found: told.alarms, alarms: [] });
  for (const [kind, rows] of Object.entries(kinds)) {
    if (!byId(`show-${kind}`).checked) continue;
    for (const each of rows) {
      svg.append(...outlineOf(each, { class: kind }));
      if (byId("show-names").checked) svg.append(labelOf(each, unit, kind));
    }
  }
  const counts = data.labelled
    ? `${told.found.length} found, ${told.missed.length} missed, ${told.alarms.length} false`
    : `${told.alarms.length} detections`;
  const stage = element("button", { type: "button", class: "stage", title: "larger or smaller" },
    element("img", { src: image.tiles[image.fronts[m]][i], alt: `${image.name}, ${data.conditions[i].name}` }), svg);
  stage.addEventListener("click", () => {
    view.large = view.large === m ? -1 : m;
    show();
  });
  const text = element("figcaption", {}, element("b", {}, data.models[m]), ` ${told.known ? counts : "not run"}`);
  return element("figure", view.large === m ? { class: "large" } : {}, stage, text);
}

/** Draw what is chosen, and say what may be chosen now. */
function show() {
  const numbers = strengthsOf();
  view.strength = Math.min(view.strength, numbers.length - 1);
  const slider = byId("strength");
  slider.max = numbers.length - 1;
  slider.value = view.strength;
  const i = condition();
  byId("strength-said").textContent = data.conditions[i].name;
  byId("least-said").textContent = view.least.toFixed(2);
  const names = listed();
  if (names.length && !names.includes(view.image)) view.image = names[0];
  byId("image").replaceChildren(...names.map((n) => element("option", { value: n }, data.images[n].name)));
  byId("image").value = view.image;
  for (const id of ["image", "before", "after"]) byId(id).disabled = !names.length;
  byId("place").textContent = names.length ? `${names.indexOf(view.image) + 1} of ${names.length}` : "no image: the models agree on all";
  const image = data.images[view.image];
  byId("panels").replaceChildren(...(names.length ? data.models.map((_, m) => panel(image, m, i)) : []));
}

function step(by) {
  const names = listed();
  view.image = names[(names.indexOf(view.image) + by + names.length) % names.length];
  show();
}

function prepareViewer() {
  if (!data.images.length) return;
  byId("corruption-choice").prepend(choice("corruption", corruptions, (n) => {
    view.corruption = n;
    show();
  }));
  const present = [...new Set(data.images.flatMap((image) => [...image.objects, ...image.found.flat(2).filter(Boolean)].map((each) => each.class)))];
  present.sort((a, b) => a - b);
  byId("only").append(element("option", { value: -1 }, "all classes"), ...present.map((n) => element("option", { value: n }, data.classes[n])));
  const numbers = { image: "image", strength: "strength", least: "least", only: "only" };
  for (const [id, key] of Object.entries(numbers)) {
    byId(id).addEventListener("input", () => {
      view[key] = Number(byId(id).value);
      show();
    });
  }
  for (const id of ["show-truth", "show-found", "show-missed", "show-alarms", "show-names", "differ"]) {
    byId(id).addEventListener("change", show);
  }
  byId("differ").parentElement.hidden = data.models.length < 2;
  byId("before").addEventListener("click", () => step(-1));
  byId("after").addEventListener("click", () => step(1));
  view.strength = strengthsOf().length - 1;
  show();
}

prepareScheme();
prepareTables();
prepareCurves();
prepareErrors();
prepareViewer();
