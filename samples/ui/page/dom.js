// Helpers to build the page. Text is always inserted as text, never parsed as HTML, since it comes
// from services and users.

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** Creates an element. `data` sets data-* attributes and `css` sets --* properties; the other `properties` are assigned. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  const { data = {}, css = {}, ...rest } = properties;
  Object.assign(element, rest);
  Object.assign(element.dataset, data);
  for (const [name, value] of Object.entries(css)) element.style.setProperty(`--${name}`, value);
  element.append(...children.filter((child) => child != null));
  return element;
}

/** A bar for a share from 0 to 1. Hidden from screen readers, which read the number next to it. */
export const bar = (share) =>
  el("div", { className: "bar", ariaHidden: "true" }, el("i", { css: { part: `${(share * 100).toFixed(1)}%` } }));

/** Makes the children of `parent` match `items` by key, in order, and reuses the elements of items that remain. */
export function keyed(parent, items, key, make, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, index) => {
    const name = key(item);
    let child = old.get(name);
    old.delete(name);
    if (!child) {
      child = make(item);
      child.dataset.key = name;
    }
    update(child, item);
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
  });
  for (const removed of old.values()) removed.remove();
}

/** Sets text only if it differs, so that a screen reader doesn't announce it again. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const percent = (share) => `${Math.round(share * 100)} %`;

export const count = (number, one, many) => `${number} ${number === 1 ? one : many}`;

/** Formats a duration, such as "8 s", "3 min" or "2 h". */
export function formatDuration(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
}
