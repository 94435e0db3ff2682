// The opened pair: a photo under its output, with a line between them that the pointer or the arrow keys move.
// Where several outputs are compared, any two of the pictures can be laid over each other.

const dialog = $("pair");
const frame = $("frame");
const images = { under: $("under"), over: $("over") };
const slider = $("slider"); // what keys and screen readers hold on to; the pointer moves it through the frame
const FINEST = 2048; // pixels of a face's side
const STEP = 2; // per cent that an arrow key moves the line; with Shift, ten

let open = 0; // place in `shown` of the pair that is open
let sides = [0, 1]; // the pictures that are left and right of the line
let apart = false; // all pictures side by side, without a line

function openPair(place) {
  open = place;
  dialog.showModal();
  showPair();
  slider.focus();
}

function showPair() {
  const photo = shown[open];
  const known = pictures(photo);
  if (!known) {
    setTimeout(() => dialog.open && shown[open] === photo && showPair(), 100);
  }
  const [name, face] = photos[photo];
  $("name").replaceChildren(element("bdi", {}, name), element("span", {}, face ? `, face ${face}` : ""));
  $("position").textContent = `${number.format(open + 1)} of ${number.format(shown.length)}`;
  $("previous").setAttribute("aria-disabled", open === 0);
  $("next").setAttribute("aria-disabled", open === shown.length - 1);
  $("about").replaceChildren(...(apart ? titles.map((_, column) => column) : sides).map((column) => about(photo, column, known)));
  $("apart").setAttribute("aria-pressed", apart);
  $("choice").hidden = titles.length === 2 || apart;
  frame.hidden = apart;
  $("row").hidden = !apart;
  if (apart) showApart(photo, known);
  else showOver(photo, known);
}

/** Two pictures over each other, in a frame that both fill, see `shape`. */
function showOver(photo, known) {
  const [left, right] = sides;
  for (const [id, column] of [["under", left], ["over", right]]) {
    const image = images[id];
    const note = $(`${id}note`);
    note.parentNode.replaceChildren(image, note); // there may be a face instead
    image.alt = `${called(photo)}, ${titles[column]}`;
    note.textContent = known && !known[column][0] ? reason(photo, column) : "";
    image.hidden = !known?.[column][0];
    image.removeAttribute("src");
    if (known) load(image, known[column]);
    $(`${id}tag`).textContent = titles[column];
  }
  if (known?.[0][0]) whole.src = source(known[0][0]);
  else whole.removeAttribute("src");
  const both = known && known[left][0] && known[right][0];
  frame.classList.toggle("broken", Boolean(known) && !both);
  slider.setAttribute("aria-label", `Line between ${titles[left]} and ${titles[right]}`);
  slide(Number(slider.value));
}

function showApart(photo, known) {
  $("row").replaceChildren(
    ...titles.map((title, column) => {
      const image = element("img", { alt: `${called(photo)}, ${title}` });
      if (known?.[column][0]) load(image, known[column]);
      const box = known && !known[column][0] ? element("p", {}, reason(photo, column)) : image;
      return element("figure", {}, box, element("figcaption", {}, title));
    }),
  );
}

/** The small picture at once, and the full one as soon as the browser has it, if it is where it was. */
function load(image, [small, url, face]) {
  if (!small) return;
  image.src = source(small);
  image.dataset.small = "";
  const full = new Image();
  full.onload = async () => {
    if (face) await image.decode().catch(() => undefined); // its shape is needed
    if (image.src !== source(small)) return; // another pair is open by now
    if (face) {
      image.replaceWith(cutOut(image, full, face));
      return;
    }
    image.src = full.src;
    delete image.dataset.small;
  };
  full.src = url;
}

/** The square of a face out of the full picture; beyond the photo's border there is what the small picture has there.
    A full picture of other proportions than the photo's is not all of it: then the small one stays. */
function cutOut(image, full, [x, y, side, angle, width, height]) {
  const scale = full.naturalWidth / width;
  if (Math.abs(full.naturalHeight / height - scale) > 0.02 * scale) return image;
  const pixels = Math.min(FINEST, Math.ceil(side * scale)) / Math.min(image.naturalWidth, image.naturalHeight);
  const [across, down] = [Math.round(image.naturalWidth * pixels), Math.round(image.naturalHeight * pixels)];
  const canvas = element("canvas", { width: across, height: down, role: "img", "aria-label": image.alt });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, across, down);
  context.translate(across / 2, down / 2);
  context.scale(Math.min(across, down) / side, Math.min(across, down) / side);
  context.rotate((-angle * Math.PI) / 180);
  context.drawImage(full, -x, -y, width, height);
  return canvas;
}

const whole = new Image(); // the photo itself, whatever is shown
const ratio = (image) => image.naturalWidth / image.naturalHeight;

/** An output is the whole photo or its middle. The frame takes the shape of the picture that is less like the photo,
    the middle if there is one; the other one fills it from its own middle, so the two lie on each other. */
function shape() {
  const ready = [images.over, images.under].filter((image) => !image.hidden && image.naturalWidth);
  if (!ready.length) return;
  const unlike = (image) => (whole.naturalWidth ? Math.abs(Math.log(ratio(image) / ratio(whole))) : 0);
  const less = ready.reduce((one, other) => (unlike(other) > unlike(one) + 0.02 ? other : one)); // 0.02: rounding
  frame.style.setProperty("--ratio", ratio(less));
}

for (const image of [images.under, images.over, whole]) image.addEventListener("load", shape);

/** What is known of a picture, in words, and the way to its file. */
function about(photo, column, known) {
  const [, , bytes, ...outcomes] = photos[photo];
  const outcome = column ? outcomes[column - 1] : [bytes, 0];
  const [made, faces] = Array.isArray(outcome) ? outcome : [0, 0];
  const words = [];
  if (made) words.push(size(made));
  if (faces > 1) words.push(`${number.format(faces)} faces`);
  const url = known?.[column][1];
  const title = url ? element("a", { href: url, target: "_blank", rel: "noopener" }, titles[column]) : titles[column];
  return element("span", {}, title, words.length ? ` ${words.join(", ")}` : "");
}

function size(bytes) {
  if (bytes < 1e6) return `${Math.max(1, Math.round(bytes / 1e3))} kB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/** Move the line; per cent of the frame's width, left of it is the left picture. */
function slide(value) {
  slider.value = Math.max(0, Math.min(100, value));
  frame.style.setProperty("--at", `${slider.value}%`);
  slider.setAttribute("aria-valuetext", `${Math.round(slider.value)} per cent ${titles[sides[0]]}`);
}

function step(by) {
  const place = Math.max(0, Math.min(shown.length - 1, open + by));
  if (place === open) return;
  open = place;
  showPair();
}

function choose(side, column) {
  sides[side] = column;
  ["left", "right"].forEach((id, number) => { $(id).value = sides[number]; });
  showPair();
}

function toggleApart() {
  apart = !apart;
  showPair();
  (apart ? $("apart") : slider).focus(); // what is hidden cannot keep it
}

slider.addEventListener("input", () => slide(Number(slider.value)));
const follow = (event) => {
  const box = frame.getBoundingClientRect();
  slide(((event.clientX - box.left) / box.width) * 100);
};
frame.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  frame.setPointerCapture(event.pointerId);
  follow(event);
});
frame.addEventListener("pointermove", (event) => frame.hasPointerCapture(event.pointerId) && follow(event));
frame.addEventListener("mousedown", (event) => {
  event.preventDefault(); // no dragging of the picture, and the focus stays with the slider
  slider.focus();
});

dialog.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("select")) return;
  const pressed = event.target.closest("button, a");
  const by = event.shiftKey ? 5 * STEP : STEP;
  const keys = {
    ArrowLeft: () => slide(Number(slider.value) - by),
    ArrowRight: () => slide(Number(slider.value) + by),
    ArrowUp: () => step(-1),
    ArrowDown: () => step(1),
    PageUp: () => step(-10),
    PageDown: () => step(10),
    Home: () => slide(0),
    End: () => slide(100),
    s: toggleApart,
  };
  if (!pressed) keys[" "] = () => slide(slider.value < 50 ? 100 : 0); // on a button it presses that
  if (titles.length > 2) titles.slice(1).forEach((_, column) => { keys[column + 1] = () => choose(1, column + 1); });
  if (!(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
});
dialog.addEventListener("close", () => goTo(open));
$("close").addEventListener("click", () => dialog.close());
$("previous").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("apart").addEventListener("click", toggleApart);
["left", "right"].forEach((id, side) => {
  titles.forEach((title, column) => $(id).append(element("option", { value: column }, title)));
  $(id).value = sides[side];
  $(id).addEventListener("change", () => choose(side, Number($(id).value)));
});

// -------------------------------------------------------------------------------------------- begin

$("digits").hidden = titles.length === 2;
makeFilters();
listFailures();
select();
addEventListener("DOMContentLoaded", () => {
  fill();
  $("incomplete").hidden = Boolean($("end"));
});
