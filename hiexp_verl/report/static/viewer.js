
"use strict";
// Models wrote what is shown here: it enters the page as text nodes and attribute values only, never as markup.
(() => {
const ROW = 56; // height of a row in pixels, as in the style
const SPARE = 6; // rows kept ready above and below the visible ones
const STEP = 25; // links, comparisons or quotes written at once; a strategy may rest on thousands
const LEVELS = ["E1", "E2", "E3"];
const EMPTY = [];

const at = id => document.getElementById(id);
const data = JSON.parse(at("data").textContent);
const entries = data.entries;
const number = new Intl.NumberFormat("en").format;
const parents = entries.map(() => EMPTY);
entries.forEach((entry, i) => (entry.children || EMPTY).forEach(child => {
  parents[child] = [...parents[child], i];
}));
const byId = new Map(entries.map((entry, i) => [entry.id, i]));
const tagsOf = entry => (entry.tags || EMPTY).map(tag => data.tags[tag]);
const texts = entries.map(e => [e.title, e.description, e.id, ...tagsOf(e)].join("\n").toLowerCase());
// From the general to the particular; within a level in the order of the file.
const order = [2, 1, 0].flatMap(level => [...entries.keys()].filter(i => entries[i].level === level));

function make(name, properties, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

// ---- finding ----------------------------------------------------------------------------------------------------------

const list = at("list"), rowsBox = at("rows");
const filters = ["level", "kind", "finding", "shape", "asked"];
const unfolded = new Map(); // entry -> whether a person opened or closed it
let found = order; // entries that match
let rows = []; // what the list shows: {entry, depth, context, fold}
let active = 0; // row that the keys move
let chosen = -1; // entry that is open

function matching() {
  const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const [level, kind, ...tags] = filters.map(name => at(name).value);
  const wanted = tags.filter(Boolean).map(Number);
  return order.filter(i => {
    const entry = entries[i];
    return (!level || entry.level === +level) && (!kind || entry.kind === kind)
      && wanted.every(tag => (entry.tags || EMPTY).includes(tag)) && words.every(word => texts[i].includes(word));
  });
}

function refresh() {
  found = matching();
  at("count").textContent = found.length === entries.length ? number(entries.length) + " entries"
    : number(found.length) + " of " + number(entries.length) + " entries";
  layOut();
  active = 0;
  list.scrollTop = 0;
  draw();
}

function layOut() {
  const tree = at("view").value === "tree";
  rows = tree ? treeRows() : found.map(entry => ({entry, depth: 0}));
  active = Math.max(0, Math.min(active, rows.length - 1));
  list.setAttribute("role", tree ? "tree" : "listbox");
  rowsBox.style.height = Math.max(rows.length, 1) * ROW + "px";
}

// A parent that does not match itself stands, pale and unfolded, over those of its children that do.
function treeRows() {
  const matches = new Set(found), kept = new Set(found), queue = [...found];
  for (const i of queue) for (const parent of parents[i]) if (!kept.has(parent)) queue.push(parent), kept.add(parent);
  const made = [];
  const visit = (entry, depth) => {
    const below = (entries[entry].children || EMPTY).filter(child => kept.has(child));
    const context = !matches.has(entry);
    const open = below.length > 0 && (unfolded.get(entry) ?? context);
    made.push({entry, depth, context, fold: below.length ? (open ? "open" : "closed") : ""});
    if (open) below.forEach(child => visit(child, depth + 1));
  };
  order.filter(i => kept.has(i) && !parents[i].length).forEach(i => visit(i, 0));
  return made;
}

function draw() {
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
  const last = Math.min(rows.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + SPARE);
  const visible = [];
  for (let n = first; n < last; n++) visible.push(drawRow(n));
  if (!rows.length) visible.push(make("p", {className: "soft row"}, "", "Nothing matches: use fewer words or clear the filters."));
  rowsBox.replaceChildren(...visible);
  if (active >= first && active < last) list.setAttribute("aria-activedescendant", "row" + active);
  else list.removeAttribute("aria-activedescendant");
}

function drawRow(n) {
  const {entry: i, depth, context, fold} = rows[n], entry = entries[i];
  const children = entry.children ? ", " + entry.children.length + " below" : "";
  const row = make("div", {
    id: "row" + n, className: "row" + (n === active ? " active" : "") + (context ? " context" : ""),
    role: fold === undefined ? "option" : "treeitem", title: entry.title,
    "aria-selected": String(i === chosen), "aria-setsize": rows.length, "aria-posinset": n + 1,
  },
  make("span", {className: "fold", "aria-hidden": "true"}, fold === "open" ? "▾" : fold === "closed" ? "▸" : ""),
  make("div", {className: "line"}, entry.title),
  make("div", {className: "line"}, make("b", {className: "level" + entry.level}, LEVELS[entry.level]), " ",
    entry.kind === "pitfall" ? make("span", {className: "bad"}, "pitfall ") : "", entry.id + children + " · " + entry.description));
  if (fold !== undefined) row.setAttribute("aria-level", depth + 1);
  if (fold) row.setAttribute("aria-expanded", String(fold === "open"));
  row.style.top = n * ROW + "px";
  row.style.paddingLeft = depth * 18 + "px";
  return row;
}

function setFold(n, open) {
  unfolded.set(rows[n].entry, open);
  layOut();
  draw();
}

function move(n) {
  active = Math.max(0, Math.min(n, rows.length - 1));
  const top = active * ROW;
  list.scrollTop = Math.min(top, Math.max(list.scrollTop, top + ROW - list.clientHeight));
  draw();
}

function parentRow(n) {
  let above = n;
  while (above > 0 && rows[above].depth >= rows[n].depth) above--;
  return above;
}

list.addEventListener("keydown", event => {
  const row = rows[active], page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
  if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
  const act = {
    ArrowDown: () => move(active + 1), ArrowUp: () => move(active - 1), PageDown: () => move(active + page),
    PageUp: () => move(active - page), Home: () => move(0), End: () => move(rows.length - 1),
    ArrowRight: () => row.fold === "closed" ? setFold(active, true) : row.fold && move(active + 1),
    ArrowLeft: () => row.fold === "open" ? setFold(active, false) : row.depth && move(parentRow(active)),
    Enter: () => go(row.entry), " ": () => go(row.entry),
  }[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
list.addEventListener("click", event => {
  const element = event.target.closest(".row[id]");
  if (!element) return;
  active = +element.id.slice(3);
  if (event.target.closest(".fold") && rows[active].fold) setFold(active, rows[active].fold === "closed");
  else go(rows[active].entry);
});
let waiting = false;
list.addEventListener("scroll", () => {
  if (!waiting) requestAnimationFrame(() => { waiting = false; draw(); });
  waiting = true;
});
new ResizeObserver(draw).observe(list);
at("filters").addEventListener("submit", event => event.preventDefault());
at("filters").addEventListener("input", () => { unfolded.clear(); refresh(); });
at("clear").addEventListener("click", () => { at("filters").reset(); unfolded.clear(); refresh(); at("search").focus(); });
document.addEventListener("keydown", event => {
  if (event.key !== "/" || /^(INPUT|SELECT)$/.test(event.target.tagName)) return;
  event.preventDefault();
  at("search").focus();
});

// ---- one entry --------------------------------------------------------------------------------------------------------

const hashOf = i => "#" + encodeURIComponent(entries[i].id);
const link = i => [make("b", {className: "level" + entries[i].level}, LEVELS[entries[i].level]), " ",
  make("a", {href: hashOf(i)}, entries[i].id), " " + entries[i].title];

// Write the items of a long part in steps.
function* inSteps(items, write, box) {
  for (let done = 0; done < items.length; done += STEP) {
    box.append(...items.slice(done, done + STEP).map(write));
    if (done + STEP < items.length) yield;
  }
}

function part(title, items, write, box) {
  if (!items || !items.length) return [];
  const steps = inSteps(items, write, box);
  const more = make("button", {type: "button", onclick: () => { more.hidden = steps.next().done; label(); }});
  const label = () => { more.textContent = "Show more (" + number(items.length - box.childElementCount) + " left)"; };
  more.hidden = steps.next().done;
  label();
  return [make("h3", {}, title + " (" + number(items.length) + ")"), box, more];
}

const stepsOf = ([, , , prediction, queries]) => [...queries.map(query => ["search", query]), ["answer", prediction]];

function comparison([failure, success, differs]) {
  const sides = [[failure, "✗ failure", "bad"], [success, "✓ success", "good"]].filter(([source]) => source >= 0);
  const sources = sides.map(([source]) => data.sources[source]);
  const [questionId, question] = data.questions[sources[0][1]];
  const head = sides.map(([, verdict, style], n) => make("th", {scope: "col"}, make("b", {className: style}, verdict),
    make("span", {className: "what"}, sources[n][0] + (data.models[sources[n][2]] ? ", " + data.models[sources[n][2]] : ""))));
  const done = sources.map(stepsOf), body = make("tbody");
  for (let n = 0; n < Math.max(...done.map(steps => steps.length)); n++) {
    const cells = done.map(steps => make("td", {}, ...(steps[n]
      ? [make("span", {className: "what"}, steps[n][0]), steps[n][1] || "(none)"] : [])));
    const name = n === differs ? make("th", {scope: "row", title: "here they part", "aria-label": n + 1 + ", here they part"}, "▶ " + (n + 1))
      : make("th", {scope: "row"}, String(n + 1));
    body.append(make("tr", {className: n === differs ? "differs" : ""}, name, ...cells));
  }
  return make("table", {},
    make("caption", {}, question + " ", make("span", {className: "soft"}, questionId)),
    make("colgroup", {}, make("col", {className: "step"}), ...sides.map(() => make("col"))),
    make("thead", {}, make("tr", {}, make("th", {scope: "col", "aria-label": "step"}), ...head)), body);
}

function quote({trajectory, message, start, end, what, quote, excerpt}) {
  const place = " " + trajectory + ", message " + message + ", characters " + start + " to " + end;
  return make("blockquote", {}, make("p", {className: "who"}, make("span", {className: "tag"}, what), place), make("p", {}, "“" + quote + "”"),
    excerpt ? make("p", {className: "text"}, excerpt.before, make("mark", {}, excerpt.span), excerpt.after) : "");
}

function facts(entry) {
  const questions = (entry.questions || EMPTY).map(i => data.questions[i][0]);
  const some = ids => number(ids.length) + ": " + ids.slice(0, STEP).join(", ") + (ids.length > STEP ? ", …" : "");
  const fields = [
    ["tags", entry.tags && tagsOf(entry).map(tag => make("span", {className: "tag"}, tag))],
    ["counters", entry.counters && [Object.entries(entry.counters).map(([name, count]) => name + " " + count).join(", ")]],
    ["effect on the reward", entry.effect && [entry.effect]],
    ["shown only where", entry.when && [entry.when.join(", ")]],
    ["questions", questions.length && [some(questions)]],
    ["rollouts without record", entry.others && [some(entry.others)]],
  ];
  return make("dl", {}, ...fields.filter(([, value]) => value).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, ...value)]));
}

function show(i) {
  const entry = entries[i], box = () => make("div"), items = () => make("ul");
  const write = j => make("li", {}, ...link(j));
  at("entry").replaceChildren(
    make("button", {type: "button", className: "back", onclick: () => { list.focus(); list.scrollIntoView({block: "center"}); }}, "↑ Entries"),
    make("p", {className: "who"}, make("b", {className: "level" + entry.level}, LEVELS[entry.level]), " " + entry.id + " ",
      make("span", {className: "tag " + entry.kind}, entry.kind)),
    make("h2", {tabIndex: -1}, entry.title),
    make("p", {className: "advice"}, entry.description),
    facts(entry),
    ...part("Parents", parents[i], write, items()),
    ...part("Children", entry.children, write, items()),
    ...part("Sources side by side", entry.comparisons, comparison, box()),
    ...part("Evidence", entry.evidence, quote, box()));
  at("entry").scrollTop = 0;
  document.title = entry.id + " " + entry.title;
}

function go(i) {
  if (location.hash === hashOf(i)) open();
  else location.hash = hashOf(i);
}

// Show the entry that the address names; the row of it, too, where the list has one.
function open() {
  let id = location.hash.slice(1);
  try { id = decodeURIComponent(id); } catch { /* a broken escape: reported below as an unknown entry */ }
  if (!id) return;
  chosen = byId.has(id) ? byId.get(id) : -1;
  if (chosen < 0) {
    at("entry").replaceChildren(make("p", {className: "bad"}, "This HEK has no entry “" + id + "”."));
    return draw();
  }
  show(chosen);
  for (let above = parents[chosen][0]; above !== undefined; above = parents[above][0]) unfolded.set(above, true);
  layOut();
  const row = rows.findIndex(({entry}) => entry === chosen);
  if (row < 0) draw();
  else move(rows[active].entry === chosen ? active : row);
  if (at("entry").offsetTop > list.offsetTop + list.offsetHeight) { // one column: the entry is below
    at("entry").scrollIntoView();
    at("entry").querySelector("h2").focus({preventScroll: true});
  }
}
addEventListener("hashchange", open);

// ---- start ------------------------------------------------------------------------------------------------------------

const uses = new Map();
for (const entry of entries) for (const tag of entry.tags || EMPTY) uses.set(tag, (uses.get(tag) || 0) + 1);
for (const name of filters.slice(2)) {
  const own = [...uses].filter(([tag]) => data.tags[tag].startsWith(name + ":")).sort((a, b) => b[1] - a[1]);
  at(name).append(...own.map(([tag, count]) => make("option", {value: tag}, data.tags[tag].slice(name.length + 1) + " (" + number(count) + ")")));
  at(name).parentElement.hidden = !own.length;
}
at("view").value = entries.some(entry => entry.children) ? "tree" : "list";
refresh();
open();
})();
