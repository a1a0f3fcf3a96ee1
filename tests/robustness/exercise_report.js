// Uses every control of report.html and writes down what the page then shows, for test_viewer.py.
const told = {};
const id = (name) => document.getElementById(name);
const set = (name, value, event = "input") => { id(name).value = value; id(name).dispatchEvent(new Event(event)); };
const check = (name, on) => { id(name).checked = on; id(name).dispatchEvent(new Event("change")); };
const captions = () => [...document.querySelectorAll("#panels figcaption")].map((each) => each.textContent);
const drawnOf = (kind) => document.querySelectorAll(`#panels rect.${kind}`).length;
const sorted = (table) => [...table.tBodies[0].rows].map((row) => row.cells[1].textContent);
try {
  told.scheme = getComputedStyle(document.body).backgroundColor;
  id("scheme").click();
  told.other = getComputedStyle(document.body).backgroundColor;
  const table = document.querySelector("#summary table"), head = table.tHead.rows[0].cells[1].firstChild;
  head.click(); told.descending = sorted(table);
  head.click(); told.ascending = sorted(table);
  const circles = () => [...document.querySelectorAll("#curve-charts circle")].map((c) => c.getAttribute("cy")).join();
  told.charts = document.querySelectorAll("#curve-charts .chart").length;
  const before = circles();
  const metric = document.querySelector("#curve-controls select");
  metric.value = 1; metric.dispatchEvent(new Event("change"));
  told.metric = circles() !== before;
  const chart = document.querySelector("#curve-charts .chart");
  chart.dispatchEvent(new Event("focus"));
  chart.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
  told.said = chart.parentElement.querySelector(".said").textContent;
  chart.dispatchEvent(new Event("blur"));
  told.hidden = chart.parentElement.querySelector(".said").hidden;
  const bounds = chart.getBoundingClientRect();
  chart.dispatchEvent(new PointerEvent("pointermove", { clientX: bounds.left + 0.98 * bounds.width }));
  told.pointed = chart.parentElement.querySelector(".said b").textContent;
  for (const name of ["errors", "precision", "reliability"]) {
    const first = id(`${name}-charts`).innerHTML, select = document.querySelector(`#${name}-controls select`);
    told[name] = id(`${name}-charts`).querySelectorAll(".chart").length;
    select.value = 1; select.dispatchEvent(new Event("change"));
    told[`${name} changed`] = id(`${name}-charts`).innerHTML !== first;
  }
  told.captions = {};
  for (const least of [0.25, 0.6]) {
    for (const image of [0, 1]) {
      for (const strength of [0, 1, 2]) {
        set("least", least); set("image", image); set("strength", strength);
        told.captions[[least, image, strength]] = captions();
      }
    }
  }
  told.strength = id("strength-said").textContent;
  const corruption = document.querySelector("#corruption-choice select");
  corruption.value = 1; corruption.dispatchEvent(new Event("change"));
  told.corruption = id("strength-said").textContent;
  set("least", 0.25); set("strength", 0); set("image", 0);
  told.boxes = Object.fromEntries(["truth", "found", "missed", "alarms"].map((kind) => [kind, drawnOf(kind)]));
  check("show-truth", true); told.truth = drawnOf("truth");
  for (const kind of ["found", "missed", "alarms"]) {
    check(`show-${kind}`, false);
    told[`without ${kind}`] = drawnOf(kind);
  }
  told.names = document.querySelectorAll("#panels text").length;
  check("show-names", false); told.unnamed = document.querySelectorAll("#panels text").length;
  for (const kind of ["found", "missed", "alarms"]) check(`show-${kind}`, true);
  const all = captions();
  told.classes = id("only").options.length;
  set("only", id("only").options[1].value);
  told.one = captions(); set("only", -1); told.again = captions().join() === all.join();
  id("after").click(); told.after = id("image").value;
  id("before").click(); told.before = id("image").value;
  told.place = id("place").textContent;
  check("differ", true); told.differ = id("place").textContent; check("differ", false);
  document.querySelector("#panels .stage").click();
  told.large = document.querySelectorAll("#panels figure.large").length;
  document.querySelector("#panels .stage").click();
  told.small = document.querySelectorAll("#panels figure.large").length;
  told.wider = document.documentElement.scrollWidth > document.documentElement.clientWidth;
} catch (error) {
  told.error = `${error.message} ${error.stack}`;
}
document.body.append(Object.assign(document.createElement("pre"), { id: "told", textContent: JSON.stringify(told) }));
