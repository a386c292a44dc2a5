"""Uses every function of py-consul, and fails if a response is unexpected.

Usage: py_consul.py HOST PORT
"""

import sys
import threading
import time

import consul

host, port = sys.argv[1], int(sys.argv[2])
c = consul.Consul(host=host, port=port)


def until(condition, what):
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return found


def keys():
    index, missing = c.kv.get("py/none")
    assert missing is None and int(index) >= 1
    assert c.kv.put("py/a", "one", flags=7)
    assert c.kv.put("py/b/c", b"\x00\xff")
    index, entry = c.kv.get("py/a")
    assert (entry["Value"], entry["Flags"], entry["LockIndex"]) == (b"one", 7, 0), entry
    _, entries = c.kv.get("py/", recurse=True)
    assert [e["Key"] for e in entries] == ["py/a", "py/b/c"] and entries[1]["Value"] == b"\x00\xff"
    _, names = c.kv.get("py/", keys=True, separator="/")
    assert names == ["py/a", "py/b/"], names
    assert not c.kv.put("py/a", "two", cas=0)
    assert c.kv.put("py/a", "two", cas=entry["ModifyIndex"])

    woken = []

    def watch():
        index, found = 0, None
        while found is None:
            index, found = consul.Consul(host, port).kv.get("py/w", index=index, wait="20s")
        woken.append(found)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    c.kv.put("py/w", "now")
    watcher.join(60)
    assert woken and woken[0]["Value"] == b"now", woken
    assert c.kv.delete("py/", recurse=True)
    assert c.kv.get("py/", recurse=True)[1] is None


def locks():
    holder = c.session.create(name="holder", ttl=3600, lock_delay=0, behavior="delete")
    other = c.session.create(name="other", ttl=3600, lock_delay=0)
    assert c.kv.put("py/lock", "mine", acquire=holder)
    assert not c.kv.put("py/lock", "theirs", acquire=other)
    assert c.kv.get("py/lock")[1]["Session"] == holder
    assert c.session.renew(holder)["TTL"] == "3600s"
    assert c.session.info(holder)[1]["Name"] == "holder"
    node = c.agent.self()["Config"]["NodeName"]
    ids = {s["ID"] for s in c.session.node(node)[1]}
    assert {holder, other} <= ids <= {s["ID"] for s in c.session.list()[1]}
    assert c.session.destroy(holder)
    assert c.kv.get("py/lock")[1] is None, "behavior=delete removes the key"
    assert c.kv.put("py/lock", "theirs", acquire=other)
    assert c.kv.put("py/lock", "", release=other)
    c.session.destroy(other)
    try:
        c.session.renew(other)
        raise AssertionError("an ended session was renewed")
    except consul.NotFound:
        pass
    c.kv.delete("py/lock")


def transactions():
    value = "dA=="
    done = c.txn.put(
        [
            {"KV": {"Verb": "set", "Key": "py/t", "Value": value}},
            {"KV": {"Verb": "get", "Key": "py/t"}},
        ]
    )
    assert [r["KV"]["Value"] for r in done["Results"]] == [None, value], done
    c.kv.delete("py/t")


def services():
    check = consul.Check.ttl("1h")
    assert c.agent.service.register(
        "py-web", service_id="py-1", port=80, tags=["v1"], meta={"k": "v"}, check=check
    )
    assert c.agent.services()["py-1"]["Port"] == 80
    until(lambda: c.catalog.service("py-web")[1], "not in the catalog")
    assert c.catalog.services()[1]["py-web"] == ["v1"]
    assert c.health.service("py-web", passing=True)[1] == []
    index = c.health.service("py-web")[0]
    assert c.agent.check.ttl_pass("service:py-1", notes="fine")
    found = until(
        lambda: c.health.service("py-web", passing=True, index=index, wait="1s", tag="v1")[1],
        "not passing",
    )
    assert found[0]["Checks"][-1]["Output"] == "fine", found
    assert c.agent.check.ttl_warn("service:py-1")
    assert c.agent.check.ttl_fail("service:py-1")
    until(lambda: c.health.service("py-web", passing=True)[1] == [], "still passing")
    assert [k["CheckID"] for k in c.health.checks("py-web")[1]] == ["service:py-1"]
    assert any(k["CheckID"] == "service:py-1" for k in c.health.state("critical")[1])
    assert c.agent.service.maintenance("py-1", True, "why not")
    assert any(k["Notes"] == "why not" for k in c.agent.checks().values())
    assert c.agent.service.maintenance("py-1", False)
    assert c.agent.check.register("py-own", check=consul.Check.ttl("1h"), service_id="py-1")
    assert c.agent.check.deregister("py-own")
    assert c.agent.service.deregister("py-1")
    until(lambda: c.catalog.service("py-web")[1] == [], "still in the catalog")


def catalog():
    assert c.catalog.register(
        "py-node",
        "10.0.0.9",
        service={"service": "py-db", "id": "db-1", "port": 5432},
        check={"name": "up", "serviceid": "db-1", "status": "passing"},
    )
    assert [n["Node"] for n in c.catalog.nodes()[1] if n["Node"] == "py-node"]
    assert c.catalog.node("py-node")[1]["Services"]["db-1"]["Port"] == 5432
    assert c.health.node("py-node")[1][0]["Name"] == "up"
    assert c.catalog.deregister("py-node")
    assert c.catalog.node("py-node")[1] is None
    assert c.catalog.datacenters() == ["dc1"]


def the_rest():
    assert c.status.leader() and c.status.peers()
    assert c.event.fire("py-event", "body")
    until(lambda: c.event.list("py-event")[1], "no event")
    assert c.agent.members()[0]["Status"] == 1
    assert c.agent.maintenance(True) and c.agent.maintenance(False)
    assert c.coordinate.datacenters()
    try:
        c.acl.token.list("no ACLs here")
        raise AssertionError("ACLs are off")
    except consul.ACLDisabled:
        pass


for part in (keys, locks, transactions, services, catalog, the_rest):
    part()
print("passed")
