// Small things every part of the page needs: elements, colours, figures, what the browser keeps.

export const $ = (id) => document.getElementById(id);

export const number = new Intl.NumberFormat("en");

export const milliseconds = (ms) =>
  ms < 1 ? "< 1 ms" : ms < 1000 ? `${Math.round(ms)} ms` : `${number.format(Number((ms / 1000).toPrecision(2)))} s`;

/** A hue per name, far enough apart to tell neighbours from each other. */
export function hueOf(text) {
  let hash = 7;
  for (const character of text) hash = (Math.imul(hash, 31) + character.codePointAt(0)) >>> 0;
  return (hash * 47) % 360;
}

/** Creates an element with a class and text: never markup, what arrives is not ours. */
export function element(tag, className, text) {
  const node = document.createElement(tag);
  node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

export function keep(storage, name, value) {
  try {
    storage.setItem(`imcluster.${name}`, value);
  } catch {
    // Storage may be forbidden; then the choice lasts as long as the page.
  }
}

export function kept(storage, name) {
  try {
    return storage.getItem(`imcluster.${name}`);
  } catch {
    return null;
  }
}
