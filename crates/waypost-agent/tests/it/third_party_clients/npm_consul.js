// Uses every function of the npm package consul, and fails if a response is unexpected.
//
// Usage: node npm_consul.js HOST PORT

const assert = require("node:assert/strict");
const Consul = require("consul");

const [host, port] = process.argv.slice(2);
const c = new Consul({ host, port: Number(port) });

async function until(condition, what) {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const found = await condition();
    if (found) return found;
    assert.ok(Date.now() < deadline, what);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

// Resolves with the first response of a watch that satisfies the condition.
function seen(method, options, condition) {
  const watch = c.watch({ method, options, backoffFactor: 100 });
  return new Promise((resolve, reject) => {
    watch.on("error", reject);
    watch.on("change", (data) => condition(data) && resolve(data));
  }).finally(() => watch.end());
}

async function keys() {
  assert.equal(await c.kv.get("npm/none"), undefined);
  assert.equal(await c.kv.set({ key: "npm/a", value: "one", flags: 7 }), true);
  const entry = await c.kv.get("npm/a");
  assert.deepEqual([entry.Value, entry.Flags], ["one", 7]);
  assert.deepEqual(await c.kv.keys("npm/"), ["npm/a"]);
  assert.ok(!(await c.kv.set({ key: "npm/a", value: "two", cas: "0" })));
  assert.equal(await c.kv.set({ key: "npm/a", value: "two", cas: entry.ModifyIndex }), true);
  const watched = seen(c.kv.get, { key: "npm/w" }, (data) => data?.Value === "now");
  await c.kv.set("npm/w", "now");
  await watched;
  await c.kv.del({ key: "npm/", recurse: true });
  assert.equal(await c.kv.get({ key: "npm/", recurse: true }), undefined);
}

async function locks() {
  const { ID: session } = await c.session.create({ name: "npm", ttl: "1h", lockdelay: "0s" });
  assert.equal(await c.kv.set({ key: "npm/lock", value: "x", acquire: session }), true);
  const { ID: other } = await c.session.create({ name: "other", ttl: "1h" });
  assert.ok(!(await c.kv.set({ key: "npm/lock", value: "y", acquire: other })));
  assert.equal((await c.session.get(session)).Name, "npm");
  assert.equal((await c.session.renew(session))[0].TTL, "1h");
  assert.ok((await c.session.list()).some((it) => it.ID === session));
  const node = (await c.agent.self()).Config.NodeName;
  assert.ok((await c.session.node(node)).some((it) => it.ID === other));
  assert.equal(await c.kv.set({ key: "npm/lock", value: "", release: session }), true);
  await c.session.destroy(session);
  await c.session.destroy(other);
  await c.kv.del("npm/lock");
}

async function transactions() {
  const done = await c.transaction.create([
    { KV: { Verb: "set", Key: "npm/t", Value: "dA==" } },
    { KV: { Verb: "get", Key: "npm/t" } },
  ]);
  assert.equal(done.Results.length, 2);
  await c.kv.del("npm/t");
}

async function services() {
  const health = (options) => c.health.service({ service: "npm-web", ...options });
  const passing = seen(
    c.health.service,
    { service: "npm-web", passing: true },
    (data) => data.length === 1,
  );
  await c.agent.service.register({
    id: "npm-1",
    name: "npm-web",
    port: 80,
    tags: ["v1"],
    meta: { k: "v" },
    check: { ttl: "1h", notes: "a note" },
  });
  assert.equal((await c.agent.services())["npm-1"].Port, 80);
  await until(async () => (await health()).length === 1, "not in the catalog");
  assert.deepEqual(await health({ passing: true }), []);
  await c.agent.check.pass({ id: "service:npm-1", note: "fine" });
  const [instance] = await passing;
  assert.equal(instance.Checks.at(-1).Output, "fine");
  assert.equal((await c.catalog.service.nodes("npm-web"))[0].ServiceID, "npm-1");
  assert.deepEqual((await c.catalog.services())["npm-web"], ["v1"]);
  await c.agent.check.warn("service:npm-1");
  await c.agent.check.fail("service:npm-1");
  await until(async () => !(await health({ passing: true })).length, "still passing");
  assert.equal((await c.health.checks("npm-web"))[0].Notes, "a note");
  assert.ok((await c.health.state("critical")).length > 0);
  await c.agent.service.maintenance({ id: "npm-1", enable: true, reason: "why not" });
  const checks = Object.values(await c.agent.checks());
  assert.ok(checks.some((check) => check.Notes === "why not"));
  await c.agent.service.maintenance({ id: "npm-1", enable: false });
  await c.agent.check.register({ name: "npm-own", ttl: "1h", serviceid: "npm-1" });
  await c.agent.check.deregister("npm-own");
  await c.agent.service.deregister("npm-1");
  await until(async () => !(await health()).length, "still in the catalog");
}

async function catalog() {
  await c.catalog.register({
    node: "npm-node",
    address: "10.0.0.9",
    service: { service: "npm-db", id: "db-1", port: 5432 },
    check: { node: "npm-node", name: "up", checkid: "up", status: "passing" },
  });
  const services = await c.catalog.node.services("npm-node");
  assert.equal(services.Services["db-1"].Port, 5432);
  assert.equal((await c.health.node("npm-node"))[0].Name, "up");
  assert.ok((await c.catalog.node.list()).some((node) => node.Node === "npm-node"));
  await c.catalog.deregister({ node: "npm-node" });
  assert.deepEqual(await c.catalog.datacenters(), ["dc1"]);
}

async function theRest() {
  assert.ok(await c.status.leader());
  assert.equal((await c.status.peers()).length, 1);
  await c.event.fire({ name: "npm-event", payload: "body" });
  const [event] = await until(async () => {
    const events = await c.event.list("npm-event");
    return events.length ? events : undefined;
  }, "no event");
  assert.equal(event.Payload, "body");
  assert.equal((await c.agent.members())[0].Status, 1);
  await c.agent.maintenance(true);
  await c.agent.maintenance(false);
  await c.agent.reload();
}

(async () => {
  for (const part of [keys, locks, transactions, services, catalog, theRest]) await part();
  console.log("passed");
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
