// The stage: messages cross it in lanes, as bullet comments do. It shows what fits and drops the rest;
// the list and the counters miss nothing.

import { $, element, hueOf } from "./dom.js";

const SPRITES_MAX = 60; // in flight
const LANE = 42; // pixels
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const lanes = []; // when each lane has room for the next bullet, and how fast it runs
let turn = 0;

/** Lets the newest messages cross the stage. Those that find no lane are counted and listed only. */
export function fly(entries, isMine) {
  const stage = $("bullets");
  const room = SPRITES_MAX - stage.childElementCount;
  const { clientWidth: width, clientHeight: height } = stage;
  const now = performance.now();
  const total = Math.max(1, Math.floor(height / LANE));
  while (lanes.length < total) lanes.push({ free: 0, speed: 0.85 + ((lanes.length * 7) % 5) * 0.08 });
  const sprites = [];
  for (const entry of entries.slice(-Math.max(0, Math.min(room, total)))) {
    const lane = freeLane(total, now);
    if (lane === undefined) break;
    lanes[lane].free = Infinity; // taken, until its width is known
    sprites.push({ node: sprite(entry, lane, isMine(entry)), lane });
  }
  stage.append(...sprites.map(({ node }) => node));
  // All widths are read after all writes: one layout a frame.
  const widths = sprites.map(({ node }) => node.offsetWidth);
  sprites.forEach(({ node, lane }, n) => launch(node, lanes[lane], widths[n], width, now));
}

function freeLane(total, now) {
  for (let step = 0; step < total; step += 1) {
    const lane = (turn + step * 3) % total;
    if (lanes[lane].free <= now) {
      turn = lane + 2;
      return lane;
    }
  }
  const lane = lanes.slice(0, total).findIndex(({ free }) => free <= now);
  return lane < 0 ? undefined : lane;
}

function sprite({ text, from, room }, lane, mine) {
  const node = element("div", mine ? "bullet mine" : "bullet", text.length > 80 ? `${text.slice(0, 80)}…` : text);
  node.style.setProperty("--hue", hueOf(from || room));
  node.style.setProperty("--room", hueOf(room));
  node.style.top = `${lane * LANE}px`;
  return node;
}

function launch(node, lane, width, stageWidth, now) {
  if (calm.matches) {
    // Nothing moves: it stands for a while, then makes room.
    node.style.left = `${16 + ((lanes.indexOf(lane) * 37) % Math.max(1, Math.min(160, stageWidth - width - 32)))}px`;
    lane.free = now + 2500;
    setTimeout(() => node.remove(), 2500);
    return;
  }
  const speed = Math.max(90, stageWidth / 7) * lane.speed; // pixels a second, one speed per lane: nobody overtakes
  const flight = node.animate(
    [{ transform: `translateX(${stageWidth}px)` }, { transform: `translateX(${-width}px)` }],
    { duration: ((stageWidth + width) / speed) * 1000, easing: "linear" },
  );
  lane.free = now + ((width + 28) / speed) * 1000;
  flight.finished.then(() => node.remove(), () => node.remove());
}
