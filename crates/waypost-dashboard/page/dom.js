// Helpers to build the page. Text from outside is always inserted as text, never parsed as HTML.

/**
 * @typedef {string | Node | null | undefined | false} Child
 * @typedef {Record<string, any>} Attributes Functions named `on…` are listeners; null and false are left out.
 */

/**
 * Creates an element, as in `el("button.btn.go", { title: "Restart" }, "Restart")`.
 * @param {string} tag with classes @param {...(Attributes | Child)} content attributes, if there are any, and children
 * @returns {HTMLElement}
 */
export const el = (tag, ...content) => /** @type {HTMLElement} */ (create("http://www.w3.org/1999/xhtml", tag, content));

/** Creates an SVG element, as `el` does. @param {string} tag @param {...(Attributes | Child)} content @returns {SVGElement} */
export const svg = (tag, ...content) => /** @type {SVGElement} */ (create("http://www.w3.org/2000/svg", tag, content));

/** @param {string} namespace @param {string} tag @param {(Attributes | Child)[]} content */
function create(namespace, tag, content) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElementNS(namespace, name);
  if (classes.length) element.setAttribute("class", classes.join(" ").trim());
  for (const part of content) {
    if (typeof part === "string" || part instanceof Node) element.append(part);
    else if (part) {
      for (const [name, value] of Object.entries(part)) {
        if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
        else if (value != null && value !== false) element.setAttribute(name, value === true ? "" : value);
      }
    }
  }
  return element;
}

/** Sets a text only if it differs, so that it isn't drawn or announced again. @param {Node} node @param {string} value */
export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

/** Sets or removes an attribute, only if it differs. @param {Element} element @param {string} name @param {string | null | false} value */
export function attribute(element, name, value) {
  if (value === null || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== value) {
    element.setAttribute(name, value);
  }
}

/** Replaces the children, only if `key` differs from that of the last call. @param {Element & {_key?: string}} parent @param {string} key @param {() => Child[]} make */
export function once(parent, key, make) {
  if (parent._key === key) return;
  parent._key = key;
  parent.replaceChildren(...make().filter((child) => child != null && child !== false).map((child) => /** @type {Node | string} */ (child)));
}

/** Removes all children. @param {Element & {_key?: string}} parent */
export function clear(parent) {
  parent._key = undefined;
  parent.replaceChildren();
}

/**
 * Makes the children of `parent` match `items` by key and in order. Elements of items that remain are reused, and keep
 * the focus. While the user has selected text inside, the order is left as it is.
 * @template T
 * @param {Element} parent @param {T[]} items @param {(item: T) => string} key
 * @param {(item: T) => Element} make @param {(element: any, item: T) => void} update
 */
export function keyed(parent, items, key, make, update) {
  /** @type {Map<string, Element>} */
  const old = new Map();
  for (const child of parent.children) old.set(/** @type {any} */ (child)._item ?? "", child);
  const wanted = new Set(items.map(key));
  const focused = document.activeElement;
  const isHeld = hasSelection(parent);
  let next = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let child = old.get(name);
    old.delete(name);
    const isNew = !child;
    if (!child) {
      child = make(item);
      /** @type {any} */ (child)._item = name;
    }
    update(child, item);
    while (next && !wanted.has(/** @type {any} */ (next)._item ?? "")) {
      const gone = next;
      next = next.nextElementSibling;
      gone.remove();
    }
    if (child === next) next = next.nextElementSibling;
    else if (isNew) parent.insertBefore(child, next);
    else if (!isHeld) move(parent, child, next);
  }
  for (const gone of old.values()) gone.remove();
  if (focused && focused !== document.activeElement && focused.isConnected) {
    /** @type {HTMLElement} */ (focused).focus({ preventScroll: true });
  }
}

/** Moves a child. Where the browser can, it keeps focus, animations and loaded frames. @param {any} parent @param {Element} child @param {Element | null} before */
function move(parent, child, before) {
  if (parent.moveBefore) parent.moveBefore(child, before);
  else parent.insertBefore(child, before);
}

/** Whether text inside of an element is selected. @param {Element} element */
export function hasSelection(element) {
  const selection = document.getSelection();
  return !!selection && selection.type === "Range" && selection.containsNode(element, true) && element.contains(selection.anchorNode);
}

/** @param {string} id @returns {HTMLElement} */
export const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** A span that only screen readers read. @param {string} words */
export const hiddenText = (words) => el("span.sr", words);
