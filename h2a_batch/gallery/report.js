"use strict";
// The gallery of a report; `report_pair.js` follows in the same script element. All text reaches the page as text nodes and attributes, never as markup: the page's own
// policy forbids the rest. Only what is near the viewport is in the document, so the number of photos hardly matters.

const $ = (id) => document.getElementById(id);
const { headings, chunk: CHUNK } = JSON.parse($("settings").textContent);
// a photo, or a face of it: [name, number of the face or 0, bytes of the photo, for each heading: [bytes, faces],
// "why it failed", false where no face was found, or null where there is nothing yet]
const photos = JSON.parse($("index").textContent);
const titles = ["Before", ...headings]; // of a photo's pictures, its own first
const number = new Intl.NumberFormat("en");

// ---------------------------------------------------------------------------------------------- data

const STATES = ["done", "failed", "no-face", "pending"];
const states = photos.map(([, , , ...outcomes]) => {
  if (outcomes.some((outcome) => typeof outcome === "string")) return "failed";
  if (outcomes.includes(null)) return "pending";
  return outcomes.includes(false) ? "no-face" : "done";
});
const parsed = new Map(); // the chunks that were asked for last
const CHUNKS_KEPT = 24;

/** A photo's pictures, [small, url] each, and of a face where in the photo it is, [x, y, side, angle, width and height of
    the photo]; undefined as long as the browser has not come to them. */
function pictures(photo) {
  const name = `chunk${Math.floor(photo / CHUNK)}`;
  let chunk = parsed.get(name);
  if (!chunk) {
    const block = $(name);
    const complete = document.readyState !== "loading" || block?.nextElementSibling;
    if (!complete) return undefined;
    try {
      chunk = JSON.parse(block.textContent);
    } catch {
      chunk = []; // the page was cut off; a notice at its top says so
    }
    if (parsed.size >= CHUNKS_KEPT) parsed.delete(parsed.keys().next().value);
    parsed.set(name, chunk);
  }
  return chunk[photo % CHUNK] ?? titles.map(() => ["", ""]);
}

/** What a photo is called, or a face of it. */
function called(photo) {
  const [name, face] = photos[photo];
  return face ? `${name}, face ${face}` : name;
}

const source = (small) => `data:image/webp;base64,${small}`;

/** Text as it is compared in a search: without case and accents; marks of other scripts are letters and stay. */
const folded = (text) => text.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").toLowerCase();
let foldedNames; // made by the first search

/** An element with attributes and children; text is text. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// ------------------------------------------------------------------------------------------- gallery

const gallery = $("gallery");
const cells = $("cells");
const tools = $("tools"); // they stay at the top, over the cells
const GAP = 22; // pixels between cells
const LEAST = 118; // pixels of a picture's side, at least, unless the screen is too narrow for two
const MOST = 220; // and at most: the small pictures have 160
const LINE = 18; // pixels of a line of text, as in the style sheet
const LABEL = LINE + 6; // the name below the pictures
const SPARE = 3; // rows that are kept ready above and below
const PRINTED = 1000; // pairs that are laid out on paper at most

let shown = photos.map((_, photo) => photo); // the photos that search and filter leave
let active = 0; // place in `shown` of the cell that Tab and the arrows start from
let grid = { columns: 1, across: 1, width: 0, height: 1 };
let printing = false;
let unfolded = false; // whether the failures were, before they were printed
const live = new Map(); // place in `shown` to its cell in the document

function measure() {
  const room = cells.clientWidth;
  const most = Math.min(titles.length, Math.max(2, Math.floor(room / LEAST))); // pictures on a line of a cell
  const lines = Math.ceil(titles.length / most);
  const across = Math.ceil(titles.length / lines); // rather two and two than three and one
  const columns = Math.max(1, Math.floor((room + GAP) / (across * LEAST + GAP)));
  const side = Math.floor(Math.min((room - (columns - 1) * GAP) / columns / across, MOST));
  const width = across * side;
  const caption = titles.length > 2 ? LINE : 0;
  const height = lines * (side + caption) + LABEL + GAP;
  grid = { columns, across, width, height };
  cells.style.setProperty("--side", `${side}px`);
  cells.style.setProperty("--across", across);
  cells.style.height = `${Math.ceil(shown.length / columns) * height}px`;
}

/** Bring the document in line with the viewport. */
function render() {
  if (printing) return;
  const top = window.scrollY - cells.offsetTop;
  const first = Math.max(0, Math.floor(top / grid.height) - SPARE) * grid.columns;
  const last = Math.min(shown.length, (Math.ceil((top + innerHeight) / grid.height) + SPARE) * grid.columns);
  const wanted = new Set();
  for (let place = first; place < last; place++) wanted.add(place);
  if (active < shown.length) wanted.add(active); // what has the focus must not go
  for (const [place, cell] of live) {
    if (wanted.has(place)) continue;
    cell.remove();
    live.delete(place);
  }
  let before = null; // the document's order is that of the places, for Tab and for screen readers
  for (const place of [...wanted].sort((one, other) => other - one)) {
    if (!live.has(place)) {
      live.set(place, cellAt(place));
      cells.insertBefore(live.get(place), before);
    }
    before = live.get(place);
  }
  fill();
}

function cellAt(place) {
  const photo = shown[place];
  const [name, face] = photos[photo];
  const strip = element("span", { class: "strip" });
  const label = element(
    "span",
    { class: "label" },
    element("span", { class: "number" }, number.format(photo + 1)),
    element("bdi", { title: name }, name),
    ...(face ? [element("span", { class: "face" }, `face ${face}`)] : []),
  );
  const button = element("button", { type: "button", tabindex: place === active ? 0 : -1 }, strip, label);
  const cell = element(
    "li",
    { class: `cell ${states[photo]}`, "aria-setsize": shown.length, "aria-posinset": place + 1 },
    button,
  );
  cell.style.width = `${grid.width}px`;
  cell.style.height = `${grid.height - GAP}px`;
  const column = place % grid.columns;
  cell.style.left = `${column * (grid.width + GAP)}px`;
  cell.style.top = `${((place - column) / grid.columns) * grid.height}px`;
  cell.dataset.place = place;
  cell.dataset.empty = "";
  return cell;
}

let timer; // at most one waits

/** Put pictures into the cells that have none yet; what the browser has not read comes a little later. */
function fill() {
  clearTimeout(timer);
  let late = false;
  for (const [place, cell] of live) {
    if (!("empty" in cell.dataset)) continue;
    const known = pictures(shown[place]);
    if (known) fillCell(cell, shown[place], known);
    else late = true;
  }
  if (late) timer = setTimeout(fill, 100);
}

function fillCell(cell, photo, known) {
  delete cell.dataset.empty;
  const strip = cell.querySelector(".strip");
  titles.forEach((title, column) => {
    const failed = typeof photos[photo][column + 2] === "string" && column > 0;
    const box = element("span", { class: failed ? "box failed" : "box" }, pictureOrReason(photo, column, known[column][0]));
    if (titles.length > 2) box.append(element("span", { class: "caption" }, title));
    strip.append(box);
  });
}

function pictureOrReason(photo, column, small) {
  if (!small) return element("span", { class: "reason" }, reason(photo, column));
  return element("img", { src: source(small), alt: `${called(photo)}, ${titles[column]}`, decoding: "async" });
}

/** Why there is no picture in a column. */
function reason(photo, column) {
  const outcome = photos[photo][column + 2];
  if (column === 0) return "the photo cannot be shown";
  if (outcome === null) return "not converted yet";
  if (outcome === false) return "no face found";
  return typeof outcome === "string" ? outcome : "the output cannot be shown";
}

/** Lay out anew: after a change of the window's width, the search or the filter. */
function layout() {
  const focused = cells.contains(document.activeElement);
  clear();
  measure();
  render();
  if (focused) live.get(active)?.firstChild.focus({ preventScroll: true });
}

function clear() {
  for (const cell of live.values()) cell.remove();
  live.clear();
}

/** Make a cell the active one, bring it into view and give it the focus. */
function goTo(place) {
  if (!shown.length) return;
  live.get(active)?.firstChild.setAttribute("tabindex", -1);
  active = Math.max(0, Math.min(shown.length - 1, place));
  const top = cells.offsetTop + Math.floor(active / grid.columns) * grid.height;
  const hidden = tools.offsetHeight + GAP;
  if (top - hidden < scrollY) scrollTo(0, top - hidden);
  else if (top + grid.height > scrollY + innerHeight) scrollTo(0, top + grid.height - innerHeight);
  render();
  const button = live.get(active).firstChild;
  button.setAttribute("tabindex", 0);
  button.focus({ preventScroll: true });
}

cells.addEventListener("click", (event) => {
  const cell = event.target.closest(".cell");
  if (cell) openPair(Number(cell.dataset.place));
});

cells.addEventListener("focusin", (event) => {
  const place = Number(event.target.closest(".cell").dataset.place);
  if (place === active) return;
  live.get(active)?.firstChild.setAttribute("tabindex", -1);
  active = place;
  event.target.setAttribute("tabindex", 0);
});

cells.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const page = grid.columns * Math.max(1, Math.floor(innerHeight / grid.height) - 1);
  const steps = {
    ArrowLeft: -1, ArrowRight: 1, ArrowUp: -grid.columns, ArrowDown: grid.columns,
    PageUp: -page, PageDown: page, Home: -Infinity, End: Infinity,
  };
  if (!(event.key in steps)) return;
  event.preventDefault();
  const vertical = event.key === "ArrowUp" || event.key === "ArrowDown";
  const place = active + steps[event.key];
  if (vertical && (place < 0 || place >= shown.length)) return; // there is no cell above or below
  goTo(place);
});

let waiting = false; // at most one rendering a frame
addEventListener("scroll", () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    render();
  });
}, { passive: true });

let width = 0;
new ResizeObserver(() => {
  if (cells.clientWidth === width || printing) return; // its own height is no reason
  width = cells.clientWidth;
  const first = Math.floor((scrollY - cells.offsetTop) / grid.height) * grid.columns; // it stays where it is
  layout();
  if (first > 0) scrollTo(0, cells.offsetTop + Math.floor(first / grid.columns) * grid.height);
}).observe(cells);
addEventListener("resize", render);

addEventListener("beforeprint", () => {
  printing = true;
  unfolded = $("failures").open;
  $("failures").open = true;
  clear();
  for (let place = 0; place < Math.min(shown.length, PRINTED); place++) {
    live.set(place, cellAt(place));
    cells.append(live.get(place));
  }
  fill();
  if (shown.length > PRINTED) $("found").textContent += `; the first ${number.format(PRINTED)} are printed`;
});
addEventListener("afterprint", () => {
  printing = false;
  $("failures").open = unfolded;
  select();
});

// ------------------------------------------------------------------------------------ search, filter

const search = $("search");
const words = { done: "Converted", failed: "Failed", "no-face": "No face found", pending: "Not converted yet" };
let filter = "all";

/** Show what search and filter leave. */
function select() {
  const parts = folded(search.value).split(/\s+/).filter(Boolean);
  if (parts.length) foldedNames ??= photos.map((_, photo) => folded(called(photo)));
  const kept = shown[active];
  shown = [];
  photos.forEach((_, photo) => {
    const found = parts.every((part) => foldedNames[photo].includes(part));
    if (found && (filter === "all" || states[photo] === filter)) shown.push(photo);
  });
  active = Math.max(0, shown.indexOf(kept));
  const all = shown.length === photos.length;
  $("found").textContent = all ? "" : `${number.format(shown.length)} of ${number.format(photos.length)}`;
  $("none").hidden = shown.length > 0;
  $("none").textContent = photos.length ? "No photo has this name and state." : "There were no photos.";
  layout();
}

function makeFilters() {
  const count = (state) => states.filter((one) => one === state).length;
  const choices = [["all", "All", photos.length], ...STATES.map((state) => [state, words[state], count(state)])];
  for (const [value, text, many] of choices) {
    if (!many && value !== "all") continue;
    const input = element("input", { type: "radio", name: "filter", value });
    input.checked = value === filter;
    input.addEventListener("change", () => setFilter(value));
    $("filters").append(element("label", { class: value }, input, `${text} `, element("b", {}, number.format(many))));
  }
}

/** Back to the first pictures, for a new choice of them. */
function toStart() {
  scrollTo(0, Math.min(scrollY, gallery.offsetTop - tools.offsetHeight));
}

function setFilter(value) {
  filter = value;
  for (const input of $("filters").querySelectorAll("input")) input.checked = input.value === value;
  toStart();
  select();
}

search.addEventListener("input", () => {
  toStart();
  select();
});
search.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { // the first time it clears, the second it leaves
    event.preventDefault();
    if (!search.value) search.blur();
    search.value = "";
    select();
  } else if (event.key === "Enter" || event.key === "ArrowDown") {
    event.preventDefault();
    goTo(active);
  }
});
addEventListener("keydown", (event) => {
  if (event.key !== "/" || $("pair").open || event.target.closest("input[type=search], select")) return;
  event.preventDefault();
  search.focus();
  search.select();
});

// ------------------------------------------------------------------------------------------ failures

const NAMES_LISTED = 40; // under one reason

/** The failures, by reason, the commonest first. */
function listFailures() {
  const reasons = new Map();
  const failed = new Set(); // names: a photo that failed may have a row for each face that another model found in it
  photos.forEach(([name, , , ...outcomes]) => {
    outcomes.forEach((outcome, column) => {
      if (typeof outcome !== "string") return;
      const everywhere = outcomes.every((other) => other === outcome);
      if (everywhere && column) return; // said once
      const text = everywhere ? outcome : `${headings[column]}: ${outcome}`;
      if (!reasons.has(text)) reasons.set(text, new Set());
      reasons.get(text).add(name);
      failed.add(name);
    });
  });
  if (!reasons.size) return;
  const [summary, list] = $("failures").children;
  summary.append(`${number.format(failed.size)} photo${failed.size === 1 ? "" : "s"} failed, and why`);
  const lists = [...reasons].map(([text, names]) => [text, [...names]]);
  for (const [text, names] of lists.sort((one, other) => other[1].length - one[1].length)) {
    const items = names.slice(0, NAMES_LISTED).map((name) => element("li", {}, element("bdi", {}, name)));
    if (names.length > NAMES_LISTED) items.push(element("li", {}, `and ${number.format(names.length - NAMES_LISTED)} more`));
    list.append(element("h3", {}, element("b", {}, number.format(names.length)), ` ${text}`), element("ul", {}, ...items));
  }
  const button = element("button", { type: "button" }, "Show them");
  button.addEventListener("click", () => {
    setFilter("failed");
    goTo(0);
  });
  list.append(button);
  $("failures").hidden = false;
}
