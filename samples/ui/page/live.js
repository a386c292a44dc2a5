// The live services, as the registry knows them, and how far to believe the picture.

import { byId, count, el, keyed, say, span } from "./dom.js";
import { candidates } from "./tally.js";

/** Follows the services; `changed` is called when a picture with other instances of the models came. */
export function follow(changed) {
  let models = null;
  onPicture((picture) => {
    draw(picture);
    const found = picture.services.find((service) => service.name === "ai-models")?.instances ?? [];
    candidates(found.filter((instance) => instance.usable).map((instance) => instance.id));
    const now = JSON.stringify(found.map((instance) => [instance.id, instance.usable]));
    if (now !== models) changed();
    models = now;
  });
}

/** The newest picture, when it came, and whether the line to the UI service is up. */
const state = { picture: null, came: 0, connected: true };

/** Keeps a line to the UI service open, whatever happens to it. */
function onPicture(take) {
  const source = new EventSource("events");
  source.addEventListener("picture", (event) => {
    state.picture = JSON.parse(event.data);
    state.came = performance.now();
    state.connected = true;
    take(state.picture);
    warn();
  });
  source.addEventListener("error", () => {
    state.connected = false;
    warn();
    // After an answer that is no stream, such as a gateway's error, the browser gives up; we don't.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => onPicture(take), 2000);
  });
}
setInterval(warn, 1000);

/** Says how old the picture is whenever it isn't live. */
function warn() {
  const { picture, came, connected } = state;
  const pill = byId("registry");
  const banner = byId("banner");
  byId("services").toggleAttribute("data-stale", !connected || !picture?.registry.reachable);
  if (!picture) {
    if (!connected) show("The UI service doesn't answer.", "Trying again…");
    return;
  }
  const { provider, reachable, reason, age_ms: age } = picture.registry;
  // The age is counted on here; it was told when the picture was sent.
  const old = age == null ? null : span(age + performance.now() - came);
  if (!connected) {
    show(`The line to the UI service is down. You see the services as they were ${span((age ?? 0) + performance.now() - came)} ago.`, "Trying to connect again…");
    pill.dataset.state = "stale";
    say(pill, "Disconnected");
  } else if (!reachable) {
    show(old == null ? "The registry can't be reached, and was never seen." : `The registry can't be reached. You see the services as they were ${old} ago.`, reason ?? "");
    pill.dataset.state = "stale";
    say(pill, `Unreachable: ${provider}`);
  } else {
    banner.hidden = true;
    pill.dataset.state = "live";
    say(pill, `Live from ${provider}`);
  }

  function show(headline, detail) {
    if (!banner.firstChild) banner.append(el("strong"), el("p"));
    // The age changes each second, which a screen reader needn't be told: it hears the first one.
    banner.ariaLive = banner.hidden ? "polite" : "off";
    banner.hidden = false;
    say(banner.firstChild, headline);
    say(banner.lastChild, detail);
  }
}

function draw({ services }) {
  const instances = services.reduce((sum, service) => sum + service.instances.length, 0);
  say(byId("summary"), services.length
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
  const verdict = instances.length ? `${usable} of ${instances.length} ready` : "no instances";
  say(section.querySelector("header span"), problem ?? verdict);
  keyed(section.querySelector("ul"), instances, (instance) => instance.id, makeInstance, updateInstance);
}

function makeInstance() {
  return el("li", { className: "instance" }, el("div", {}, el("b"), el("span", { className: "health" })), el("small"));
}

/** Each state has a sign and a word, so that nobody needs its colour. */
const signs = { passing: "●", warning: "▲", draining: "◐", critical: "✕", unchecked: "○" };
const words = { passing: "Healthy", warning: "Warning", draining: "Draining", critical: "Failing", unchecked: "Not checked" };

function updateInstance(item, instance) {
  const health = item.querySelector(".health");
  const before = health.dataset.health;
  say(item.querySelector("b"), instance.id);
  health.dataset.health = instance.health;
  say(health, `${signs[instance.health] ?? "?"} ${words[instance.health] ?? instance.health}`);
  const details = [instance.address, instance.version && `version ${instance.version}`, instance.zone, ...instance.tags];
  say(item.querySelector("small"), details.filter(Boolean).join(" · "));
  if (before && before !== instance.health) {
    item.dataset.flash = "";
    item.addEventListener("animationend", () => delete item.dataset.flash, { once: true });
  }
}
