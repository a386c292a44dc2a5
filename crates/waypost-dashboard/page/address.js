// The address contains everything that determines what the page shows, so links can be shared.

/**
 * @typedef {object} Address
 * @property {string} view the first part of the path; "services" for the start page
 * @property {string[]} rest the other parts of the path
 * @property {URLSearchParams} query
 */

/** @returns {Address} */
export function current() {
  const base = new URL(document.baseURI);
  const path = location.pathname.startsWith(base.pathname) ? location.pathname.slice(base.pathname.length) : "";
  const [view = "", ...rest] = path.split("/").filter(Boolean).map(decode);
  return { view: view || "services", rest, query: new URLSearchParams(location.search) };
}

/** @param {string} part */
function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The address of a view, relative to the base. Empty values are left out. @param {string[]} path @param {Record<string, string | null | undefined>} [query] */
export function href(path, query = {}) {
  const pairs = Object.entries(query).filter(([, value]) => value);
  const search = new URLSearchParams(/** @type {[string, string][]} */ (pairs)).toString();
  return (path.map(encodeURIComponent).join("/") || "./") + (search ? `?${search}` : "");
}

/** @type {Set<() => void>} */
const listeners = new Set();

/** Calls `listener` whenever the address changes. @param {() => void} listener */
export const onNavigate = (listener) => listeners.add(listener);

/** Goes to an address of this page. @param {string} to @param {{ replace?: boolean }} [options] */
export function go(to, { replace = false } = {}) {
  const url = new URL(to, document.baseURI);
  if (url.href === location.href) return;
  history[replace ? "replaceState" : "pushState"](null, "", url);
  for (const listener of listeners) listener();
}

/** Changes parameters of the current address. @param {Record<string, string | null>} parameters */
export function setQuery(parameters) {
  const url = new URL(location.href);
  for (const [name, value] of Object.entries(parameters)) {
    if (value) url.searchParams.set(name, value);
    else url.searchParams.delete(name);
  }
  go(url.href, { replace: true });
}

/** Follows links within the page without loading it again. @param {string[]} views */
export function interceptLinks(views) {
  window.addEventListener("popstate", () => listeners.forEach((listener) => listener()));
  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target instanceof Element ? event.target.closest("a[href]") : null;
    if (!link || link.getAttribute("target") || link.hasAttribute("download")) return;
    const to = new URL(/** @type {string} */ (link.getAttribute("href")), document.baseURI);
    const base = new URL(document.baseURI);
    if (to.origin !== base.origin || !to.pathname.startsWith(base.pathname)) return;
    const view = to.pathname.slice(base.pathname.length).split("/")[0];
    if (view && !views.includes(view)) return;
    event.preventDefault();
    go(to.href);
  });
}
