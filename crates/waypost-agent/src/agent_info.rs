//! The responses of `/v1/agent/self` and `/v1/agent/members`: the parts that don't depend on the
//! host, with the values of a single Consul server.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::app::{App, SERVER_PORT};
use crate::go_compat;

/// The version of Consul whose API the agent implements.
pub(crate) const CONSUL_VERSION: &str = "1.8.7";

pub(crate) const SERF_LAN_PORT: u16 = 8301;
const SERF_WAN_PORT: u16 = 8302;
/// Serf's status of a member that is alive.
const ALIVE: u8 = 1;

type Strings = BTreeMap<&'static str, String>;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AgentInfo<'a> {
    config: Config<'a>,
    debug_config: DebugConfig<'a>,
    coord: InitialCoordinate,
    member: Member,
    stats: BTreeMap<&'static str, Strings>,
    meta: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Config<'a> {
    datacenter: &'a str,
    node_name: &'a str,
    #[serde(rename = "NodeID")]
    node_id: &'a str,
    revision: &'static str,
    server: bool,
    version: &'static str,
}

/// The settings that clients read. Consul has many more.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DebugConfig<'a> {
    #[serde(rename = "ACLsEnabled")]
    acls_enabled: bool,
    #[serde(rename = "AdvertiseAddrLAN")]
    advertise_addr_lan: &'a str,
    #[serde(rename = "AdvertiseAddrWAN")]
    advertise_addr_wan: &'a str,
    datacenter: &'a str,
    dev_mode: bool,
    #[serde(rename = "EnableUI")]
    enable_ui: bool,
    #[serde(rename = "NodeID")]
    node_id: &'a str,
    node_name: &'a str,
    primary_datacenter: &'a str,
    #[serde(rename = "SerfAdvertiseAddrLAN")]
    serf_advertise_addr_lan: String,
    #[serde(rename = "SerfAdvertiseAddrWAN")]
    serf_advertise_addr_wan: String,
    server_mode: bool,
    server_port: u16,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct InitialCoordinate {
    vec: [f64; 8],
    error: f64,
    adjustment: f64,
    height: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Member {
    name: String,
    addr: String,
    port: u16,
    tags: Strings,
    status: u8,
    protocol_min: u8,
    protocol_max: u8,
    protocol_cur: u8,
    delegate_min: u8,
    delegate_max: u8,
    delegate_cur: u8,
}

impl<'a> AgentInfo<'a> {
    pub(crate) fn of(app: &'a App) -> Self {
        Self {
            config: Config {
                datacenter: &app.datacenter,
                node_name: &app.node_name,
                node_id: &app.node_id,
                revision: "",
                server: true,
                version: CONSUL_VERSION,
            },
            debug_config: DebugConfig {
                acls_enabled: app.auth.has_token(),
                advertise_addr_lan: &app.address,
                advertise_addr_wan: &app.address,
                datacenter: &app.datacenter,
                dev_mode: false,
                enable_ui: true,
                node_id: &app.node_id,
                node_name: &app.node_name,
                primary_datacenter: &app.datacenter,
                serf_advertise_addr_lan: format!("tcp://{}:{SERF_LAN_PORT}", app.address),
                serf_advertise_addr_wan: format!("tcp://{}:{SERF_WAN_PORT}", app.address),
                server_mode: true,
                server_port: SERVER_PORT,
                version: CONSUL_VERSION,
            },
            coord: InitialCoordinate {
                vec: [0.0; 8],
                error: 1.5,
                adjustment: 0.0,
                height: 1e-5,
            },
            member: Member::of(app, false),
            stats: stats(app),
            meta: &app.node_meta,
        }
    }
}

impl Member {
    /// The member in the LAN pool, or in the WAN pool of the servers of all datacenters.
    pub(crate) fn of(app: &App, wan: bool) -> Self {
        let mut tags = Strings::from([
            ("acls", u8::from(app.auth.has_token()).to_string()),
            ("bootstrap", "1".to_owned()),
            ("build", format!("{CONSUL_VERSION}:")),
            ("dc", app.datacenter.clone()),
            ("ft_fs", "1".to_owned()),
            ("id", app.node_id.clone()),
            ("port", SERVER_PORT.to_string()),
            ("raft_vsn", "3".to_owned()),
            ("role", "consul".to_owned()),
            ("segment", String::new()),
            ("vsn", "2".to_owned()),
            ("vsn_max", "3".to_owned()),
            ("vsn_min", "2".to_owned()),
        ]);
        let mut name = app.node_name.clone();
        if wan {
            name = format!("{name}.{}", app.datacenter);
        } else {
            tags.insert("wan_join_port", SERF_WAN_PORT.to_string());
        }
        Self {
            name,
            addr: app.address.clone(),
            port: if wan { SERF_WAN_PORT } else { SERF_LAN_PORT },
            tags,
            status: ALIVE,
            protocol_min: 1,
            protocol_max: 5,
            protocol_cur: 2,
            delegate_min: 2,
            delegate_max: 5,
            delegate_cur: 4,
        }
    }
}

fn stats(app: &App) -> BTreeMap<&'static str, Strings> {
    let (services, checks, ttls) = app.store.read(|state| {
        let ttls = state
            .local
            .checks()
            .filter(|record| record.check.kind == "ttl");
        (
            state.local.services().count(),
            state.local.checks().count(),
            ttls.count(),
        )
    });
    let agent = [
        ("check_monitors", "0".to_owned()),
        ("check_ttls", ttls.to_string()),
        ("checks", checks.to_string()),
        ("services", services.to_string()),
    ];
    let build = [
        ("prerelease", String::new()),
        ("revision", String::new()),
        ("version", CONSUL_VERSION.to_owned()),
    ];
    let consul = [
        (
            "acl",
            if app.auth.has_token() {
                "enabled"
            } else {
                "disabled"
            }
            .to_owned(),
        ),
        ("bootstrap", "true".to_owned()),
        ("known_datacenters", "1".to_owned()),
        ("leader", "true".to_owned()),
        ("leader_addr", app.leader()),
        ("server", "true".to_owned()),
    ];
    let runtime = [
        ("arch", go_compat::arch().to_owned()),
        ("os", std::env::consts::OS.to_owned()),
    ];
    BTreeMap::from([
        ("agent", agent.into()),
        ("build", build.into()),
        ("consul", consul.into()),
        ("runtime", runtime.into()),
    ])
}
