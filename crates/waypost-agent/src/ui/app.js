// Shows the services and their instances, and updates them. Two blocking queries wait for changes:
// one for the list of services and one for all checks. Each change reloads the services that are
// expanded on the page. A blocking query for each expanded service would exceed the number of
// connections that a browser opens to one host.
"use strict";

const RETRY_MS = 2000;
const LABELS = { passing: "Passing", warning: "Warning", critical: "Critical" };
const ICONS = { passing: "✓", warning: "!", critical: "✗" };
const ORDER = ["passing", "warning", "critical"];

const list = document.getElementById("services");
const search = document.getElementById("search");
const summary = document.getElementById("summary");
const connection = document.getElementById("connection");
const empty = document.getElementById("empty");

const tokenForm = document.getElementById("token-form");
const tokenInput = document.getElementById("token");
const tokenError = document.getElementById("token-error");

/** The key of the token in the session storage, which lasts until the tab is closed. */
const TOKEN_KEY = "waypost-token";

/** The cards on the page, by service name. */
const cards = new Map();
/** All checks. */
let checks = [];

start();

function start() {
  search.addEventListener("input", filter);
  tokenForm.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(TOKEN_KEY, tokenInput.value);
    tokenInput.value = "";
    retryWithToken();
  });
  describeAgent();
  watch("/v1/catalog/services", (services) => {
    showServices(services);
    reloadExpanded();
  });
  watch("/v1/health/state/any", (all) => {
    checks = all;
    showStatuses();
    reloadExpanded();
  });
}

/** Resolves when a new token has been entered. */
let tokenEntered = Promise.withResolvers();

function retryWithToken() {
  tokenEntered.resolve();
  tokenEntered = Promise.withResolvers();
}

/** Sends a request with the token, if there is one. If it is rejected, waits for another token. */
async function request(path) {
  for (;;) {
    const sent = sessionStorage.getItem(TOKEN_KEY);
    const response = await fetch(path, { headers: sent ? { "X-Consul-Token": sent } : {} });
    if (response.status !== 403) {
      tokenForm.hidden = true;
      return response;
    }
    const text = await response.text();
    // Another token may have been entered in the meantime.
    if (sent !== sessionStorage.getItem(TOKEN_KEY)) continue;
    tokenError.textContent = sent ? `The token was rejected: ${text}.` : "";
    connection.textContent = "Token required";
    tokenForm.hidden = false;
    await tokenEntered.promise;
  }
}

async function describeAgent() {
  try {
    const { Config } = await (await request("/v1/agent/self")).json();
    document.getElementById("agent").textContent = `${Config.NodeName} in ${Config.Datacenter}`;
  } catch {
    setTimeout(describeAgent, RETRY_MS);
  }
}

/** Runs a blocking query repeatedly and calls `show` with each new response. */
async function watch(path, show) {
  let index = 0;
  for (;;) {
    try {
      const response = await request(`${path}?index=${index}&wait=5m`);
      if (!response.ok) throw new Error(await response.text());
      const next = Number(response.headers.get("X-Consul-Index"));
      const body = await response.json();
      // An index that goes back means that the registry has been restarted.
      if (next !== index) show(body);
      index = next >= index ? next : 0;
      setConnection(true);
    } catch {
      setConnection(false);
      index = 0;
      await new Promise((resume) => setTimeout(resume, RETRY_MS));
    }
  }
}

function setConnection(live) {
  connection.textContent = live ? "Live" : "Registry unreachable, retrying…";
}

function showServices(services) {
  for (const [name, card] of cards) {
    if (!(name in services)) {
      card.item.remove();
      cards.delete(name);
    }
  }
  const names = Object.keys(services);
  for (const [i, name] of names.entries()) {
    const card = cards.get(name) ?? addCard(name);
    card.tags = services[name];
    card.tagList.replaceChildren(...services[name].map((tag) => element("span", "tag", tag)));
    if (list.children[i] !== card.item) list.insertBefore(card.item, list.children[i] ?? null);
  }
  empty.hidden = names.length > 0;
  filter();
  showStatuses();
}

function addCard(name) {
  const details = element("details");
  const head = element("summary");
  const tagList = element("span");
  const statusSlot = element("span", "service-status");
  head.append(element("h2", "", name), tagList, statusSlot);
  const body = element("div", "scroll");
  details.append(head, body);
  const item = element("li");
  item.append(details);
  const card = { item, details, tagList, status: statusSlot, body, tags: [] };
  details.addEventListener("toggle", () => loadInstances(name, card));
  cards.set(name, card);
  return card;
}

function reloadExpanded() {
  for (const [name, card] of cards) loadInstances(name, card);
}

/** Loads the instances of a service if its card is expanded. */
async function loadInstances(name, card) {
  if (!card.details.open) return;
  try {
    const response = await request(`/v1/health/service/${encodeURIComponent(name)}`);
    if (response.ok) showInstances(card, name, await response.json());
  } catch {
    // The blocking queries fail as well and report it.
  }
}

function showInstances(card, name, instances) {
  const table = element("table");
  const header = element("thead");
  const titles = element("tr");
  for (const title of ["Instance", "Address", "Status", "Checks"]) {
    const cell = element("th", "", title);
    cell.scope = "col";
    titles.append(cell);
  }
  header.append(titles);
  const rows = element("tbody");
  for (const { Node, Service, Checks } of instances) {
    const row = element("tr");
    const address = Service.Address || Node.Address;
    const host = address.includes(":") ? `[${address}]` : address;
    row.append(cell(element("code", "", Service.ID)));
    row.append(cell(element("code", "", Service.Port ? `${host}:${Service.Port}` : host)));
    row.append(cell(status(worst(Checks.map((check) => check.Status)))));
    const checkList = element("ul");
    for (const check of Checks) {
      const entry = element("li");
      entry.append(status(check.Status), ` ${check.Name}`);
      if (check.Notes) entry.append(element("span", "output", check.Notes));
      if (check.Output) entry.append(element("span", "output", check.Output));
      checkList.append(entry);
    }
    row.append(cell(checkList));
    rows.append(row);
  }
  table.append(header, rows);
  table.setAttribute("aria-label", `Instances of ${name}`);
  card.body.replaceChildren(table);
}

/** Shows the worst check status of each service. A service without checks is passing. */
function showStatuses() {
  const byService = Map.groupBy(checks, (check) => check.ServiceName);
  let failing = 0;
  for (const [name, card] of cards) {
    const worstStatus = worst((byService.get(name) ?? []).map((check) => check.Status));
    if (worstStatus === "critical") failing += 1;
    card.status.replaceChildren(status(worstStatus));
  }
  const total = cards.size === 1 ? "1 service" : `${cards.size} services`;
  summary.textContent = failing ? `${total}, ${failing} with a critical check` : total;
}

function filter() {
  const text = search.value.trim().toLowerCase();
  for (const [name, card] of cards) {
    const texts = [name, ...card.tags];
    card.item.hidden = !texts.some((it) => it.toLowerCase().includes(text));
  }
}

function worst(statuses) {
  return ORDER[Math.max(0, ...statuses.map((status) => ORDER.indexOf(status)))];
}

function status(name) {
  return element("span", `status ${name}`, `${ICONS[name]} ${LABELS[name]}`);
}

function cell(content) {
  const cell = element("td");
  cell.append(content);
  return cell;
}

function element(name, className = "", text = "") {
  const created = document.createElement(name);
  if (className) created.className = className;
  if (text) created.textContent = text;
  return created;
}
