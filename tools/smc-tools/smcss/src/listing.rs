// SPDX-License-Identifier: GPL-2.0

//! Which sockets are shown, and the table of them with the columns of IBM's smcss.

use crate::args::Args;
use crate::rates::Rate;
use smc_tools_common::diag::{Entry, Extensions, Mode, State};
use smc_tools_common::table::{Column, Table};
use std::net::SocketAddr;

/// Characters of an address with its port, unless it is to be shown whole.
const ADDRESS: usize = 23;

const fn column(title: &'static str, width: usize) -> Column {
    Column { title, width }
}

const BASIC: [Column; 7] = [
    column("State", 14),
    column("UID", 5),
    column("Inode", 7),
    column("Local Address", ADDRESS),
    column("Peer Address", ADDRESS),
    column("Intf", 4),
    column("Mode", 4),
];
const RATES: [Column; 2] = [column("Sent/s", 8), column("Received/s", 10)];
const DEBUG: [Column; 14] = [
    column("Shutd", 5),
    column("Token", 8),
    column("Sndbuf", 8),
    column("Rcvbuf", 8),
    column("Peerbuf", 8),
    column("rxprod-Cursor", 13),
    column("rxcons-Cursor", 13),
    column("rxFlags", 7),
    column("txprod-Cursor", 13),
    column("txcons-Cursor", 13),
    column("txFlags", 7),
    column("txprep-Cursor", 13),
    column("txsent-Cursor", 13),
    column("txfin-Cursor", 13),
];
const SMCR: [Column; 6] = [
    column("Role", 4),
    column("IB-device", 15),
    column("Port", 4),
    column("Linkid", 6),
    column("GID", 40),
    column("Peer-GID", 0),
];
const SMCD: [Column; 5] = [
    column("GID", 16),
    column("Token", 16),
    column("Peer-GID", 16),
    column("Peer-Token", 16),
    column("Linkid", 0),
];

/// What has to be asked of the kernel.
pub(crate) fn extensions(args: &Args) -> Extensions {
    Extensions {
        conn: args.debug || args.json || args.watch.is_some(),
        link: args.smcr || args.json,
        dmb: args.smcd || args.json,
    }
}

/// Whether a socket is shown.
pub(crate) fn shown(args: &Args, entry: &Entry) -> bool {
    let state = if args.listening {
        entry.state == State::LISTEN
    } else {
        args.all || !matches!(entry.state, State::LISTEN | State::INIT)
    };
    let mode = match (args.smcr, args.smcd) {
        (true, _) => entry.mode == Mode::SmcR,
        (_, true) => entry.mode == Mode::SmcD,
        (false, false) => true,
    };
    state && mode
}

/// The table.
pub(crate) fn table(args: &Args) -> Table {
    let mut table = Table::default();
    table.add(&BASIC);
    if args.watch.is_some() {
        table.add(&RATES);
    }
    if args.debug {
        table.add(&DEBUG);
    }
    if args.smcr {
        table.add(&SMCR);
    }
    if args.smcd {
        table.add(&SMCD);
    }
    table
}

/// The cells of a socket's line, as far as its state has any.
pub(crate) fn cells(args: &Args, entry: &Entry, rate: Option<Rate>) -> Vec<String> {
    let mut cells = vec![
        entry.state.to_string(),
        format!("{:05}", entry.uid),
        format!("{:07}", entry.inode),
    ];
    if entry.state == State::INIT {
        return cells;
    }
    cells.push(address(entry.local, args.wide));
    if entry.state == State::LISTEN {
        return cells;
    }
    cells.push(address(entry.peer, args.wide));
    cells.push(format!("{:04x}", entry.ifindex));
    if entry.state == State::CLOSED {
        return cells;
    }
    if entry.mode == Mode::Tcp {
        cells.push(fallback(entry));
        return cells;
    }
    cells.push(entry.mode.to_string());
    if args.watch.is_some() {
        let [sent, received] = match rate {
            Some(rate) => [rate.sent, rate.received].map(scaled),
            None => ["-", "-"].map(String::from),
        };
        cells.extend([sent, received]);
    }
    if args.debug {
        debug(entry, &mut cells);
    }
    if args.smcr {
        link(entry, &mut cells);
    }
    if args.smcd {
        memory(entry, &mut cells);
    }
    cells
}

/// An address and its port, and two dots for what is cut off.
fn address(address: SocketAddr, wide: bool) -> String {
    let (mut ip, port) = (address.ip().to_string(), address.port().to_string());
    let room = ADDRESS.saturating_sub(port.len() + 1);
    if !wide && ip.len() > room {
        ip.truncate(room.saturating_sub(2));
        ip.push_str("..");
    }
    format!("{ip}:{port}")
}

/// `TCP` and the reasons of the fallback.
fn fallback(entry: &Entry) -> String {
    let codes = entry.fallback;
    if codes.peer == 0 {
        format!("TCP {:#010x}", codes.reason)
    } else {
        format!("TCP {:#010x}/{:#010x}", codes.reason, codes.peer)
    }
}

fn debug(entry: &Entry, cells: &mut Vec<String>) {
    let bit = |bit: u8, set: char, clear: char| {
        if entry.shutdown & bit == 0 {
            clear
        } else {
            set
        }
    };
    cells.push(format!(" {}-{}", bit(1, 'R', '<'), bit(2, 'W', '>')));
    let Some(conn) = &entry.conn else {
        // The columns behind stay where they are.
        cells.resize(cells.len() + DEBUG.len() - 1, String::new());
        return;
    };
    let sizes = [
        conn.token,
        conn.sndbuf_size,
        conn.rmbe_size,
        conn.peer_rmbe_size,
    ];
    cells.extend(sizes.map(|size| format!("{size:08x}")));
    let flags = |prod: u8, state: u8| format!("{prod:02x}:{state:02x}");
    cells.extend([
        conn.rx_prod.to_string(),
        conn.rx_cons.to_string(),
        flags(conn.rx_prod_flags, conn.rx_conn_state_flags),
        conn.tx_prod.to_string(),
        conn.tx_cons.to_string(),
        flags(conn.tx_prod_flags, conn.tx_conn_state_flags),
        conn.tx_prep.to_string(),
        conn.tx_sent.to_string(),
        conn.tx_fin.to_string(),
    ]);
}

fn link(entry: &Entry, cells: &mut Vec<String>) {
    if let Some(link) = &entry.link {
        let role = if link.server { "SERV" } else { "CLNT" };
        cells.extend([
            role.to_string(),
            link.device.clone(),
            format!("{:02x}", link.port),
            format!("{:02x}", link.id),
            link.gid.clone(),
            link.peer_gid.clone(),
        ]);
    }
}

fn memory(entry: &Entry, cells: &mut Vec<String>) {
    if let Some(dmb) = &entry.dmb {
        let wide = [dmb.gid, dmb.token, dmb.peer_gid, dmb.peer_token];
        cells.extend(wide.map(|number| format!("{number:016x}")));
        cells.push(format!("{:08x}", dmb.link_id));
    }
}

/// A number of bytes in at most six characters: powers of ten, rounded down.
fn scaled(bytes: u64) -> String {
    let mut unit = 1u64;
    for name in ["", "k", "M", "G", "T", "P"] {
        let whole = bytes / unit;
        if whole < 1000 {
            return if unit == 1 || whole >= 100 {
                format!("{whole}{name}")
            } else {
                format!("{whole}.{}{name}", (bytes % unit) / (unit / 10))
            };
        }
        unit *= 1000;
    }
    format!("{}E", bytes / unit)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use smc_tools_common::diag::{Conn, Cursor, Dmb, Fallback, Link};

    /// A connection as IBM's documentation shows them.
    pub(crate) fn entry() -> Entry {
        Entry {
            family: 43,
            state: State::ACTIVE,
            mode: Mode::SmcR,
            local: "172.17.192.73:47772".parse().unwrap(),
            peer: "172.17.192.10:80".parse().unwrap(),
            ifindex: 0,
            cookie: 5,
            uid: 0,
            inode: 59964,
            shutdown: 0,
            fallback: Fallback::default(),
            conn: None,
            link: None,
            dmb: None,
        }
    }

    pub(crate) fn conn() -> Conn {
        let at = |count| Cursor { wrap: 0, count };
        Conn {
            token: 1,
            sndbuf_size: 0x4000,
            rmbe_size: 0x10000,
            peer_rmbe_size: 0x20000,
            rx_prod: at(1),
            rx_cons: at(2),
            tx_prod: at(3),
            tx_cons: at(4),
            rx_prod_flags: 0x80,
            rx_conn_state_flags: 0,
            tx_prod_flags: 0,
            tx_conn_state_flags: 0x20,
            tx_prep: at(5),
            tx_sent: at(6),
            tx_fin: Cursor { wrap: 1, count: 7 },
        }
    }

    pub(crate) fn a_link() -> Link {
        Link {
            id: 1,
            device: "mlx5_0".into(),
            port: 1,
            gid: "fe80:0000:0000:0000:9a03:9bff:fe23:1234".into(),
            peer_gid: "fe80:0000:0000:0000:9a03:9bff:fe23:5678".into(),
            server: true,
        }
    }

    fn line(args: &Args, entry: &Entry) -> String {
        table(args).row(cells(args, entry, None))
    }

    #[test]
    fn a_listing_is_as_ibms() {
        let args = Args::default();
        // Captured sessions of smc-tools.
        assert_eq!(
            table(&args).header(),
            "State          UID   Inode   Local Address           Peer Address            Intf Mode"
        );
        assert_eq!(
            line(&args, &entry()),
            "ACTIVE         00000 0059964 172.17.192.73:47772     172.17.192.10:80        0000 SMCR"
        );
        let declined = Entry {
            mode: Mode::Tcp,
            local: "[::ffff:10.10.93.11]:46093".parse().unwrap(),
            peer: "10.10.93.12:46093".parse().unwrap(),
            inode: 116203,
            fallback: Fallback {
                reason: 0x0500_0000,
                peer: 0x0303_0000,
            },
            ..entry()
        };
        assert_eq!(
            line(&args, &declined),
            "ACTIVE         00000 0116203 ::ffff:10.10.93..:46093 10.10.93.12:46093       0000 TCP 0x05000000/0x03030000"
        );
        let fallen = Entry {
            fallback: Fallback {
                reason: 0x0303_0000,
                peer: 0,
            },
            ..declined
        };
        assert!(line(&args, &fallen).ends_with("0000 TCP 0x03030000"));
        let listening = Entry {
            state: State::LISTEN,
            local: "0.0.0.0:37373".parse().unwrap(),
            inode: 103804,
            ..entry()
        };
        assert_eq!(
            line(&args, &listening),
            "LISTEN         00000 0103804 0.0.0.0:37373"
        );
        let new = Entry {
            state: State::INIT,
            ..entry()
        };
        assert_eq!(line(&args, &new), "INIT           00000 0059964");
        let closed = Entry {
            state: State::CLOSED,
            ifindex: 31,
            ..entry()
        };
        assert!(line(&args, &closed).ends_with(":80        001f"));
    }

    #[test]
    fn long_addresses_are_cut_unless_wide() {
        let long = "[fd09:1:2:3:4:5:6:7]:443".parse().unwrap();
        assert_eq!(address(long, false), "fd09:1:2:3:4:5:6:7:443");
        let longer = "[fd09:1111:2:3:4:5:6:7]:65535".parse().unwrap();
        assert_eq!(address(longer, false), "fd09:1111:2:3:4..:65535");
        assert_eq!(address(longer, false).len(), ADDRESS);
        assert_eq!(address(longer, true), "fd09:1111:2:3:4:5:6:7:65535");
    }

    #[test]
    fn debug_and_link_columns_stand_under_their_titles() {
        let args = Args {
            debug: true,
            smcr: true,
            ..Args::default()
        };
        let full = Entry {
            conn: Some(conn()),
            link: Some(a_link()),
            shutdown: 2,
            ..entry()
        };
        assert_eq!(
            table(&args).header(),
            "State          UID   Inode   Local Address           Peer Address            Intf Mode \
             Shutd Token    Sndbuf   Rcvbuf   Peerbuf  rxprod-Cursor rxcons-Cursor rxFlags \
             txprod-Cursor txcons-Cursor txFlags txprep-Cursor txsent-Cursor txfin-Cursor  \
             Role IB-device       Port Linkid GID                                      Peer-GID"
        );
        assert_eq!(
            line(&args, &full),
            "ACTIVE         00000 0059964 172.17.192.73:47772     172.17.192.10:80        0000 SMCR \
             \u{20}<-W  00000001 00004000 00010000 00020000 0000:00000001 0000:00000002 80:00   \
             0000:00000003 0000:00000004 00:20   0000:00000005 0000:00000006 0001:00000007 \
             SERV mlx5_0          01   01     fe80:0000:0000:0000:9a03:9bff:fe23:1234  \
             fe80:0000:0000:0000:9a03:9bff:fe23:5678"
        );
        // Without the connection's attribute the link is where it belongs.
        let bare = Entry { conn: None, ..full };
        let (header, line) = (table(&args).header(), line(&args, &bare));
        assert_eq!(header.find("Role"), line.find("SERV"));
        for (shutdown, text) in [(0, " <-> "), (1, " R-> "), (3, " R-W ")] {
            let entry = Entry {
                shutdown,
                ..entry()
            };
            assert!(format!("{} ", self::line(&args, &entry)).contains(text));
        }
    }

    #[test]
    fn smcd_has_columns_of_its_own() {
        let args = Args {
            smcd: true,
            ..Args::default()
        };
        let entry = Entry {
            mode: Mode::SmcD,
            dmb: Some(Dmb {
                link_id: 1,
                peer_gid: 2,
                gid: 3,
                token: 4,
                peer_token: 5,
            }),
            ..entry()
        };
        assert!(table(&args).header().ends_with(
            "Mode GID              Token            Peer-GID         Peer-Token       Linkid"
        ));
        assert!(line(&args, &entry).ends_with(
            "SMCD 0000000000000003 0000000000000004 0000000000000002 0000000000000005 00000001"
        ));
    }

    #[test]
    fn rates_come_behind_the_mode() {
        let args = Args {
            watch: Some(std::time::Duration::from_secs(1)),
            ..Args::default()
        };
        assert!(table(&args).header().ends_with("Mode Sent/s   Received/s"));
        assert!(line(&args, &entry()).ends_with("SMCR -        -"));
        let rate = Rate {
            sent: 12_345_678,
            received: 9,
        };
        let row = table(&args).row(cells(&args, &entry(), Some(rate)));
        assert!(row.ends_with("SMCR 12.3M    9"), "{row}");
        for (bytes, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0k"),
            (99_999, "99.9k"),
            (100_000, "100k"),
            (999_999, "999k"),
            (u64::MAX, "18E"),
        ] {
            assert_eq!(scaled(bytes), text);
        }
    }

    #[test]
    fn sockets_are_chosen_by_state_and_mode() {
        let all = |args: &Args| -> Vec<(u8, Mode)> {
            [
                State::ACTIVE,
                State::INIT,
                State::CLOSED,
                State::LISTEN,
                State(22),
            ]
            .into_iter()
            .flat_map(|state| [Mode::SmcR, Mode::Tcp, Mode::SmcD].map(|mode| (state, mode)))
            .filter(|&(state, mode)| {
                shown(
                    args,
                    &Entry {
                        state,
                        mode,
                        ..entry()
                    },
                )
            })
            .map(|(state, mode)| (state.0, mode))
            .collect()
        };
        let states = |args: &Args| -> Vec<u8> {
            all(args)
                .into_iter()
                .filter(|&(_, mode)| mode == Mode::SmcR)
                .map(|(state, _)| state)
                .collect()
        };
        assert_eq!(states(&Args::default()), [1, 7, 22]);
        let args = |all, listening, smcr, smcd| Args {
            all,
            listening,
            smcr,
            smcd,
            ..Args::default()
        };
        assert_eq!(all(&args(true, false, false, false)).len(), 15);
        assert_eq!(states(&args(false, true, false, false)), [10]);
        assert!(all(&args(true, false, true, false))
            .iter()
            .all(|&(_, mode)| mode == Mode::SmcR));
        assert!(all(&args(true, false, false, true))
            .iter()
            .all(|&(_, mode)| mode == Mode::SmcD));
    }

    #[test]
    fn only_what_is_printed_is_asked_for() {
        let none = extensions(&Args::default());
        assert!(!none.conn && !none.link && !none.dmb);
        let json = extensions(&Args {
            json: true,
            ..Args::default()
        });
        assert!(json.conn && json.link && json.dmb);
    }
}
