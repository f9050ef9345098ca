// The form that pushes over HTTP, and the same push as a curl line.

import { $, keep, kept, milliseconds } from "./dom.js";

const OP = 1000;

/** What the rest of the page decides: the room pushed to, and the name pushed under. */
export const where = { room: undefined, name: "" };

/** `type://id` in its two halves. */
export function splitRoom(room) {
  const at = room.indexOf("://");
  return { type: room.slice(0, at), id: room.slice(at + 3) };
}

function pushPath(target) {
  if (target === "all") return `/goim/push/all?operation=${OP}`;
  if (target === "mid") return `/goim/push/mids?operation=${OP}&mids=${encodeURIComponent($("push-mid").value.trim())}`;
  const { type, id } = splitRoom(where.room ?? "live://1000");
  return `/goim/push/room?operation=${OP}&type=${encodeURIComponent(type)}&room=${encodeURIComponent(id)}`;
}

/** Shows the same push as a command line. */
export function showCurl() {
  const url = (location.origin + pushPath($("push-target").value)).replaceAll("'", "%27");
  const token = $("push-token").value ? ` -H "Authorization: Bearer $TOKEN"` : "";
  $("curl").textContent = `curl${token} -d 'Hello' '${url}'`;
}

function say(text, kind = "") {
  $("push-result").textContent = text;
  $("push-result").dataset.kind = kind;
}

async function push(text) {
  const token = $("push-token").value.trim();
  const started = performance.now();
  const response = await fetch(pushPath($("push-target").value), {
    method: "POST",
    headers: { "content-type": "application/json", ...(token ? { authorization: `Bearer ${token}` } : {}) },
    body: JSON.stringify({ text, from: where.name, sentMs: Date.now() }),
  });
  if (response.status === 401 || response.status === 403) {
    $("token-line").hidden = false;
    $("push-token").focus();
    const wants = "Pushing here takes a bearer token: paste it above and push again. The server printed one in its curl line when it started.";
    say(token ? (response.status === 401 ? "The server does not know this token." : "This token may not push there.") : wants, "bad");
    return false;
  }
  const { code, message } = await response.json().catch(() => ({ code: response.ok ? 0 : response.status, message: "" }));
  if (code !== 0) {
    const wait = response.headers.get("retry-after");
    say(`Not accepted: ${message || `code ${code}`}${wait ? `, try again in ${wait} s` : ""}`, "bad");
    return false;
  }
  say(`Accepted in ${milliseconds(performance.now() - started)}`, "good");
  return true;
}

$("push-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("push-text").value.trim();
  if (!text) {
    $("push-text").focus();
    return;
  }
  if ($("push-target").value === "room" && !where.room) {
    say("Join a room first, or push to everyone.", "bad");
    return;
  }
  $("push-text").value = "";
  $("push-text").focus();
  const pushed = await push(text).catch((error) => {
    say(`The server cannot be reached: ${error.message}`, "bad");
    return false;
  });
  if (!pushed) $("push-text").value ||= text; // what was not taken is not lost
});
$("push-target").addEventListener("change", () => {
  $("push-mid").hidden = $("push-target").value !== "mid";
  $("push-mid").required = !$("push-mid").hidden;
  showCurl();
});
$("push-mid").addEventListener("input", showCurl);
$("push-token").addEventListener("input", () => {
  keep(sessionStorage, "token", $("push-token").value);
  showCurl();
});
$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText($("curl").textContent);
    $("copy").textContent = "Copied";
  } catch {
    // No clipboard outside https and localhost: select it for the keyboard instead.
    getSelection().selectAllChildren($("curl"));
    $("copy").textContent = "Selected";
  }
  setTimeout(() => ($("copy").textContent = "Copy"), 1500);
});

$("push-token").value = kept(sessionStorage, "token") ?? "";
$("token-line").hidden = !$("push-token").value;
