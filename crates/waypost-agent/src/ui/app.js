// Shows the services and their instances, live. Two blocking queries wait for changes, one for the
// list of services and one for all checks; each change is a reason to look again at the services
// that are open on the page. One query for each of those would use up the few connections that a
// browser allows itself.
"use strict";

const RETRY_MS = 2000;
const WORDS = { passing: "Passing", warning: "Warning", critical: "Critical" };
const SIGNS = { passing: "✓", warning: "!", critical: "✗" };
const ORDER = ["passing", "warning", "critical"];

const list = document.getElementById("services");
const search = document.getElementById("search");
const summary = document.getElementById("summary");
const connection = document.getElementById("connection");
const nothing = document.getElementById("nothing");

const door = document.getElementById("door");
const token = document.getElementById("token");
const refusal = document.getElementById("refusal");

/** Where the token is kept until the tab is closed. */
const TOKEN = "waypost-token";

/** What is on the page, by service name. */
const shown = new Map();
/** The checks of everything, by service name and then by instance. */
let checks = [];

start();

function start() {
  search.addEventListener("input", filter);
  door.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(TOKEN, token.value);
    token.value = "";
    letIn();
  });
  describeAgent();
  follow("/v1/catalog/services", (services) => {
    showServices(services);
    lookAgain();
  });
  follow("/v1/health/state/any", (all) => {
    checks = all;
    showCounts();
    lookAgain();
  });
}

/** Resolves when there is a new token to try. */
let admission = Promise.withResolvers();

function letIn() {
  admission.resolve();
  admission = Promise.withResolvers();
}

/** Asks the registry, with the token if there is one; while it refuses that, waits for another. */
async function ask(path) {
  for (;;) {
    const sent = sessionStorage.getItem(TOKEN);
    const response = await fetch(path, { headers: sent ? { "X-Consul-Token": sent } : {} });
    if (response.status !== 403) {
      door.hidden = true;
      return response;
    }
    const text = await response.text();
    // Another answer may have come meanwhile, or another token.
    if (sent !== sessionStorage.getItem(TOKEN)) continue;
    refusal.textContent = sent ? `That token was refused: ${text}.` : "";
    connection.textContent = "Locked";
    door.hidden = false;
    await admission.promise;
  }
}

async function describeAgent() {
  try {
    const { Config } = await (await ask("/v1/agent/self")).json();
    document.getElementById("agent").textContent = `${Config.NodeName} in ${Config.Datacenter}`;
  } catch {
    setTimeout(describeAgent, RETRY_MS);
  }
}

/** Calls `show` with each new answer of a path, for ever. */
async function follow(path, show) {
  let index = 0;
  for (;;) {
    try {
      const response = await ask(`${path}?index=${index}&wait=5m`);
      if (!response.ok) throw new Error(await response.text());
      const next = Number(response.headers.get("X-Consul-Index"));
      const answer = await response.json();
      // An index that goes back means that the registry started anew.
      if (next !== index) show(answer);
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
  connection.textContent = live ? "Live" : "The registry can't be reached. Trying again…";
}

function showServices(services) {
  for (const [name, card] of shown) {
    if (!(name in services)) {
      card.item.remove();
      shown.delete(name);
    }
  }
  const names = Object.keys(services);
  for (const [i, name] of names.entries()) {
    const card = shown.get(name) ?? addCard(name);
    card.tags = services[name];
    card.tagList.replaceChildren(...services[name].map((tag) => element("span", "tag", tag)));
    if (list.children[i] !== card.item) list.insertBefore(card.item, list.children[i] ?? null);
  }
  nothing.hidden = names.length > 0;
  filter();
  showCounts();
}

function addCard(name) {
  const details = element("details");
  const head = element("summary");
  const tagList = element("span");
  const counts = element("span", "counts");
  head.append(element("h2", "", name), tagList, counts);
  const body = element("div", "scroll");
  details.append(head, body);
  const item = element("li");
  item.append(details);
  const card = { item, details, tagList, counts, body, tags: [] };
  details.addEventListener("toggle", () => look(name, card));
  shown.set(name, card);
  return card;
}

function lookAgain() {
  for (const [name, card] of shown) look(name, card);
}

/** Fetches the instances of a service if they are to be seen. */
async function look(name, card) {
  if (!card.details.open) return;
  try {
    const response = await ask(`/v1/health/service/${encodeURIComponent(name)}`);
    if (response.ok) showInstances(card, name, await response.json());
  } catch {
    // The queries that wait notice it too, and say so.
  }
}

function showInstances(card, name, instances) {
  const table = element("table");
  const caption = element("thead");
  const titles = element("tr");
  for (const title of ["Instance", "Address", "Status", "Checks"]) {
    const cell = element("th", "", title);
    cell.scope = "col";
    titles.append(cell);
  }
  caption.append(titles);
  const rows = element("tbody");
  for (const { Node, Service, Checks } of instances) {
    const row = element("tr");
    const address = Service.Address || Node.Address;
    const place = address.includes(":") ? `[${address}]` : address;
    row.append(cell(element("code", "", Service.ID)));
    row.append(cell(element("code", "", Service.Port ? `${place}:${Service.Port}` : place)));
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
  table.append(caption, rows);
  table.setAttribute("aria-label", `Instances of ${name}`);
  card.body.replaceChildren(table);
}

/** How each service is, from the checks of all; one without checks is well. */
function showCounts() {
  const byService = Map.groupBy(checks, (check) => check.ServiceName);
  let failing = 0;
  for (const [name, card] of shown) {
    const verdict = worst((byService.get(name) ?? []).map((check) => check.Status));
    if (verdict === "critical") failing += 1;
    card.counts.replaceChildren(status(verdict));
  }
  const total = shown.size === 1 ? "1 service" : `${shown.size} services`;
  summary.textContent = failing ? `${total}, ${failing} with a critical check` : total;
}

function filter() {
  const wanted = search.value.trim().toLowerCase();
  for (const [name, card] of shown) {
    const texts = [name, ...card.tags];
    card.item.hidden = !texts.some((text) => text.toLowerCase().includes(wanted));
  }
}

function worst(statuses) {
  return ORDER[Math.max(0, ...statuses.map((status) => ORDER.indexOf(status)))];
}

function status(name) {
  return element("span", `status ${name}`, `${SIGNS[name]} ${WORDS[name]}`);
}

function cell(content) {
  const cell = element("td");
  cell.append(content);
  return cell;
}

function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}
