// SPDX-License-Identifier: GPL-2.0

//! A listing as JSON. Names and meanings are in Documentation/tools.rst, and stay.

use crate::rates::Rate;
use serde::Serialize;
use smc_tools_common::diag::{self, Entry, Mode, State};
use smc_tools_common::reason;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

#[derive(Serialize)]
struct Listing {
    sockets: Vec<Socket>,
}

#[derive(Serialize)]
struct Socket {
    state: String,
    /// None of a socket that has no connection.
    mode: Option<String>,
    family: u8,
    uid: u32,
    inode: u64,
    cookie: u64,
    local: Address,
    peer: Option<Address>,
    interface: u32,
    shutdown: Shutdown,
    fallback: Option<Fallback>,
    connection: Option<Connection>,
    link: Option<Link>,
    dmb: Option<Dmb>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<Rates>,
}

#[derive(Serialize)]
struct Address {
    address: IpAddr,
    port: u16,
}

#[derive(Serialize)]
struct Shutdown {
    receive: bool,
    send: bool,
}

#[derive(Serialize)]
struct Fallback {
    reason: u32,
    text: Option<&'static str>,
    peer_diagnosis: u32,
    peer_text: Option<&'static str>,
}

#[derive(Serialize)]
struct Cursor {
    wrap: u16,
    count: u32,
}

#[derive(Serialize)]
struct Flags {
    producer: u8,
    connection: u8,
}

#[derive(Serialize)]
struct Connection {
    token: u32,
    sndbuf: u32,
    rcvbuf: u32,
    peerbuf: u32,
    rx_prod: Cursor,
    rx_cons: Cursor,
    rx_flags: Flags,
    tx_prod: Cursor,
    tx_cons: Cursor,
    tx_flags: Flags,
    tx_prep: Cursor,
    tx_sent: Cursor,
    tx_fin: Cursor,
}

#[derive(Serialize)]
struct Link {
    role: &'static str,
    ib_device: String,
    port: u8,
    link_id: u8,
    gid: String,
    peer_gid: String,
}

#[derive(Serialize)]
struct Dmb {
    link_id: u32,
    gid: u64,
    token: u64,
    peer_gid: u64,
    peer_token: u64,
}

#[derive(Serialize)]
struct Rates {
    sent_bytes_per_second: u64,
    received_bytes_per_second: u64,
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self {
            address: address.ip(),
            port: address.port(),
        }
    }
}

impl From<diag::Cursor> for Cursor {
    fn from(cursor: diag::Cursor) -> Self {
        Self {
            wrap: cursor.wrap,
            count: cursor.count,
        }
    }
}

fn connection(conn: &diag::Conn) -> Connection {
    Connection {
        token: conn.token,
        sndbuf: conn.sndbuf_size,
        rcvbuf: conn.rmbe_size,
        peerbuf: conn.peer_rmbe_size,
        rx_prod: conn.rx_prod.into(),
        rx_cons: conn.rx_cons.into(),
        rx_flags: Flags {
            producer: conn.rx_prod_flags,
            connection: conn.rx_conn_state_flags,
        },
        tx_prod: conn.tx_prod.into(),
        tx_cons: conn.tx_cons.into(),
        tx_flags: Flags {
            producer: conn.tx_prod_flags,
            connection: conn.tx_conn_state_flags,
        },
        tx_prep: conn.tx_prep.into(),
        tx_sent: conn.tx_sent.into(),
        tx_fin: conn.tx_fin.into(),
    }
}

fn socket(entry: &Entry, rate: Option<&Rate>) -> Socket {
    let connected = entry.state != State::LISTEN;
    Socket {
        state: entry.state.to_string(),
        mode: connected.then(|| entry.mode.to_string()),
        family: entry.family,
        uid: entry.uid,
        inode: entry.inode,
        cookie: entry.cookie,
        local: entry.local.into(),
        peer: connected.then(|| entry.peer.into()),
        interface: entry.ifindex,
        shutdown: Shutdown {
            receive: entry.shutdown & 1 != 0,
            send: entry.shutdown & 2 != 0,
        },
        fallback: (entry.mode == Mode::Tcp).then(|| Fallback {
            reason: entry.fallback.reason,
            text: reason::text(entry.fallback.reason),
            peer_diagnosis: entry.fallback.peer,
            peer_text: reason::text(entry.fallback.peer),
        }),
        connection: entry.conn.as_ref().map(connection),
        link: entry.link.as_ref().map(|link| Link {
            role: if link.server { "server" } else { "client" },
            ib_device: link.device.clone(),
            port: link.port,
            link_id: link.id,
            gid: link.gid.clone(),
            peer_gid: link.peer_gid.clone(),
        }),
        dmb: entry.dmb.as_ref().map(|dmb| Dmb {
            link_id: dmb.link_id,
            gid: dmb.gid,
            token: dmb.token,
            peer_gid: dmb.peer_gid,
            peer_token: dmb.peer_token,
        }),
        rate: rate.map(|rate| Rates {
            sent_bytes_per_second: rate.sent,
            received_bytes_per_second: rate.received,
        }),
    }
}

/// A listing in one line.
pub(crate) fn line(
    entries: &[&Entry],
    rates: &HashMap<u64, Rate>,
) -> Result<String, serde_json::Error> {
    let sockets = entries
        .iter()
        .map(|entry| socket(entry, rates.get(&entry.cookie)))
        .collect();
    serde_json::to_string(&Listing { sockets })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::tests::{a_link, conn, entry};
    use serde_json::{json, Value};

    fn parsed(entries: &[&Entry], rates: &HashMap<u64, Rate>) -> Value {
        let line = line(entries, rates).unwrap();
        assert_eq!(line.lines().count(), 1);
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn everything_known_is_there() {
        let full = Entry {
            conn: Some(conn()),
            link: Some(a_link()),
            shutdown: 2,
            ..entry()
        };
        let rates = HashMap::from([(
            5,
            Rate {
                sent: 10,
                received: 20,
            },
        )]);
        let got = parsed(&[&full], &rates);
        assert_eq!(
            got,
            json!({"sockets": [{
                "state": "ACTIVE", "mode": "SMCR", "family": 43, "uid": 0, "inode": 59964, "cookie": 5,
                "local": {"address": "172.17.192.73", "port": 47772},
                "peer": {"address": "172.17.192.10", "port": 80},
                "interface": 0,
                "shutdown": {"receive": false, "send": true},
                "fallback": null,
                "connection": {
                    "token": 1, "sndbuf": 0x4000, "rcvbuf": 0x10000, "peerbuf": 0x20000,
                    "rx_prod": {"wrap": 0, "count": 1}, "rx_cons": {"wrap": 0, "count": 2},
                    "rx_flags": {"producer": 0x80, "connection": 0},
                    "tx_prod": {"wrap": 0, "count": 3}, "tx_cons": {"wrap": 0, "count": 4},
                    "tx_flags": {"producer": 0, "connection": 0x20},
                    "tx_prep": {"wrap": 0, "count": 5}, "tx_sent": {"wrap": 0, "count": 6},
                    "tx_fin": {"wrap": 1, "count": 7}
                },
                "link": {
                    "role": "server", "ib_device": "mlx5_0", "port": 1, "link_id": 1,
                    "gid": "fe80:0000:0000:0000:9a03:9bff:fe23:1234",
                    "peer_gid": "fe80:0000:0000:0000:9a03:9bff:fe23:5678"
                },
                "dmb": null,
                "rate": {"sent_bytes_per_second": 10, "received_bytes_per_second": 20}
            }]})
        );
    }

    #[test]
    fn a_listener_has_no_peer_and_no_mode() {
        let listener = Entry {
            state: State::LISTEN,
            ..entry()
        };
        let got = parsed(&[&listener], &HashMap::new());
        assert_eq!(got["sockets"][0]["peer"], Value::Null);
        assert_eq!(got["sockets"][0]["mode"], Value::Null);
    }

    #[test]
    fn a_fallback_has_its_reason_in_words() {
        let fallen = Entry {
            mode: Mode::Tcp,
            fallback: diag::Fallback {
                reason: 0x0500_0000,
                peer: 0x0303_0002,
            },
            ..entry()
        };
        let got = parsed(&[&fallen], &HashMap::new());
        assert_eq!(
            got["sockets"][0]["fallback"],
            json!({"reason": 0x0500_0000, "text": "peer declined",
                   "peer_diagnosis": 0x0303_0002, "peer_text": "no SMC-R device found"})
        );
        assert!(got["sockets"][0].get("rate").is_none());
        assert_eq!(parsed(&[], &HashMap::new()), json!({"sockets": []}));
    }
}
