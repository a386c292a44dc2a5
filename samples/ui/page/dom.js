// Building the page. Text always goes in as text: whatever a service or a user wrote, it is never
// read as HTML.

/** The element with that id. */
export const byId = (id) => document.getElementById(id);

/** Makes an element. `properties` are set as such, `data` and `css` go to data-* and --* . */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  const { data = {}, css = {}, ...rest } = properties;
  Object.assign(element, rest);
  Object.assign(element.dataset, data);
  for (const [name, value] of Object.entries(css)) element.style.setProperty(`--${name}`, value);
  element.append(...children.filter((child) => child != null));
  return element;
}

/** A bar that is full to a share from 0 to 1. The figure beside it says the same in words. */
export const bar = (share) =>
  el("div", { className: "bar", ariaHidden: "true" }, el("i", { css: { part: `${(share * 100).toFixed(1)}%` } }));

/** Makes the children of `parent` those of `items`, in order, keeping the elements of items that stay. */
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
  for (const gone of old.values()) gone.remove();
}

/** Sets text only if it changed, so that a screen reader isn't told the same thing twice. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const percent = (share) => `${Math.round(share * 100)} %`;

export const count = (number, one, many) => `${number} ${number === 1 ? one : many}`;

/** A span of time in words: "8 s", "3 min", "2 h". */
export function span(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
}
