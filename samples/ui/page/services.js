// Shows the registered services live, and how old the data is while the registry is unreachable.

import { setReadyInstances } from "./counts.js";
import { byId, count, el, formatDuration, keyed, setText } from "./dom.js";
import { subscribe } from "./overviews.js";

/** Shows the services. Calls `modelsChanged` when instances of the models appear, disappear, or change readiness. */
export function showServices(modelsChanged) {
  let last = null;
  subscribe((received) => {
    const isNew = received.overview && received.receivedAt !== state.receivedAt;
    state = received;
    if (isNew) {
      draw(state.overview);
      const instances = state.overview.services.find((service) => service.name === "ai-models")?.instances ?? [];
      setReadyInstances(instances.filter((instance) => instance.usable).map((instance) => instance.id));
      const now = JSON.stringify(instances.map((instance) => [instance.id, instance.usable]));
      if (now !== last) modelsChanged();
      last = now;
    }
    showFreshness();
  });
}

/** The latest overview, when it was received, and whether the event stream is connected. */
let state = { overview: null, receivedAt: 0, connected: true };

setInterval(showFreshness, 1000);

/** Shows whether the data is live, or else its age. */
function showFreshness() {
  const { overview, receivedAt, connected } = state;
  const pill = byId("registry");
  const banner = byId("banner");
  byId("services").toggleAttribute("data-stale", !connected || !overview?.registry.reachable);
  if (!overview) {
    if (!connected) showBanner("The UI service doesn't respond.", "Trying again…");
    return;
  }
  const { provider, reachable, reason, age_ms: age } = overview.registry;
  const ageNow = (age ?? 0) + Date.now() - receivedAt;
  const lastKnown = `Showing the services as they were ${formatDuration(ageNow)} ago.`;
  if (!connected) {
    showBanner(`The connection to the UI service is lost. ${lastKnown}`, "Reconnecting…");
    pill.dataset.state = "stale";
    setText(pill, "Disconnected");
  } else if (!reachable) {
    showBanner(age == null ? "The registry can't be reached." : `The registry can't be reached. ${lastKnown}`, reason ?? "");
    pill.dataset.state = "stale";
    setText(pill, `Unreachable: ${provider}`);
  } else {
    banner.hidden = true;
    pill.dataset.state = "live";
    setText(pill, `Live from ${provider}`);
  }

  function showBanner(headline, detail) {
    if (!banner.firstChild) banner.append(el("strong"), el("p"));
    // Screen readers announce the banner when it appears, but not each second when the age changes.
    banner.ariaLive = banner.hidden ? "polite" : "off";
    banner.hidden = false;
    setText(banner.firstChild, headline);
    setText(banner.lastChild, detail);
  }
}

function draw({ services }) {
  const instances = services.reduce((sum, service) => sum + service.instances.length, 0);
  setText(byId("summary"), services.length
    ? `${count(services.length, "service", "services")}, ${count(instances, "instance", "instances")}`
    : "No service is registered.");
  keyed(byId("services"), services, (service) => service.name, makeService, updateService);
}

function makeService(service) {
  return el("section", { className: "service", ariaLabel: service.name },
    el("header", {}, el("h3", {}, service.name), el("span")), el("ul", { className: "instances" }));
}

function updateService(section, { instances, problem }) {
  const usable = instances.filter((instance) => instance.usable).length;
  const summary = instances.length ? `${usable} of ${instances.length} ready` : "no instances";
  setText(section.querySelector("header span"), problem ?? summary);
  keyed(section.querySelector("ul"), instances, (instance) => instance.id, makeInstance, updateInstance);
}

function makeInstance() {
  return el("li", { className: "instance" }, el("div", {}, el("b"), el("span", { className: "health" })), el("small"));
}

/** Each health has a symbol and a word, so that it doesn't depend on colour alone. */
const symbols = { passing: "●", warning: "▲", draining: "◐", critical: "✕", unchecked: "○" };
const labels = { passing: "Healthy", warning: "Warning", draining: "Draining", critical: "Failing", unchecked: "Not checked" };

function updateInstance(item, instance) {
  const health = item.querySelector(".health");
  const before = health.dataset.health;
  setText(item.querySelector("b"), instance.id);
  health.dataset.health = instance.health;
  setText(health, `${symbols[instance.health] ?? "?"} ${labels[instance.health] ?? instance.health}`);
  const details = [instance.address, instance.version && `version ${instance.version}`, instance.zone, ...instance.tags];
  setText(item.querySelector("small"), details.filter(Boolean).join(" · "));
  if (before && before !== instance.health) {
    item.dataset.flash = "";
    item.addEventListener("animationend", () => delete item.dataset.flash, { once: true });
  }
}
