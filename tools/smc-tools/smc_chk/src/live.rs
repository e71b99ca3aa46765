// SPDX-License-Identifier: GPL-2.0

//! A real SMC connection, and what became of it; and the server for it.

use crate::machine::in_words;
use crate::report::Report;
use serde_json::json;
use smc_tools_common::diag::{self, Entry, Extensions, Mode};
use smc_tools_common::output::print;
use smc_tools_common::{Error, AF_SMC};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// How long a connection may take: longer than the module waits for a peer that is silent.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a server may take to say what it is.
const GREETING: Duration = Duration::from_secs(3);
/// With what our own server begins.
const NAME: &str = "smc_chk";
/// Errors of a kernel without SMC sockets.
const EAFNOSUPPORT: i32 = 97;
const EPROTONOSUPPORT: i32 = 93;

fn system(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| match error.raw_os_error() {
        Some(EAFNOSUPPORT | EPROTONOSUPPORT) => Error::NotLoaded,
        _ => Error::System { what, error },
    }
}

/// An SMC socket over the IP of an address.
fn socket(ip: IpAddr) -> Result<Socket, Error> {
    let protocol = Protocol::from(i32::from(ip.is_ipv6()));
    Socket::new(
        Domain::from(i32::from(AF_SMC)),
        Type::STREAM,
        Some(protocol),
    )
    .map_err(system("making an SMC socket"))
}

/// What `sock_diag` says of a socket.
fn entry(socket: &Socket) -> Result<Entry, Error> {
    let copy = socket.try_clone().map_err(system("copying a descriptor"))?;
    let file = File::from(OwnedFd::from(copy));
    let inode = file
        .metadata()
        .map_err(system("asking for an inode"))?
        .ino();
    let extensions = Extensions {
        link: true,
        ..Extensions::default()
    };
    let entries = diag::sockets(extensions)?;
    entries
        .into_iter()
        .find(|entry| entry.inode == inode)
        .ok_or_else(|| Error::Malformed("our socket is not among those of this namespace".into()))
}

/// What to do about a fallback.
fn advice(reason: u32, peer: u32) -> &'static str {
    match (reason, peer) {
        (0x0301_0000, _) => {
            "load SMC on the peer and have its server use it (smc_run or net.smc.tcp2smc=1 there, before it starts); if it \
             does, something on the way takes the option out of the SYN or SYN-ACK"
        }
        (0x0301_0001 | 0x0301_0002, _) => {
            "something on the way sends TCP options back, or the peer's SMC failed; such an address is tried again after \
             10 minutes"
        }
        (0x0301_0003, _) => {
            "connections there were over after a few bytes, so that TCP is quicker: nothing is wrong; net.smc.adaptive=0 makes \
             all of them ask for SMC"
        }
        (0x0101_0000, _) | (0x0500_0000, 0x0101_0000) => {
            "free memory on the side that says so, or make rings smaller: net.smc.wmem and net.smc.rmem"
        }
        (0x0303_0008, _) | (0x0500_0000, 0x0303_0008) => {
            "give both hosts an enterprise ID in common: 'smcr ueid add NAME'"
        }
        (0x0303_0000 | 0x0303_0002, _) => {
            "this host has no RDMA device for the way to the peer that both can use: see the checks above"
        }
        (0x0500_0000, 0x0303_0000 | 0x0303_0002) => {
            "the peer has no RDMA device for the way back that both can use: run 'smc_chk' there"
        }
        (0x0307_0000, _) | (0x0500_0000, 0x0307_0000) => {
            "SMC-Rv1 needs both hosts in one subnet: use RoCEv2 devices on both"
        }
        (0x0302_0000, _) => "IPsec covers this connection: SMC would go past it, so it is not used",
        (0x0308_0000, _) => "VLAN interfaces are not supported yet: use one without VLAN",
        (0x0306_0000, _) => "the program asked for an option that only TCP has (TCP Fast Open, for instance)",
        (0x0201_0000 | 0x0202_0000, _) | (0x0500_0000, 0x0201_0000 | 0x0202_0000) => {
            "the RDMA devices do not reach each other: look after UDP port 4791 (RoCEv2) in firewalls, and the MTU"
        }
        (0x0500_0000, _) => "the peer declined: run 'smc_chk' there",
        _ => "run 'smc_chk' on both hosts; Documentation/uapi.rst explains the reasons",
    }
}

/// What the kernel made of the connection.
fn judge(report: &mut Report, entry: &Entry) {
    match entry.mode {
        Mode::SmcR => {
            report.passed("option", "the peer's SYN-ACK has the SMC option");
            let text = match &entry.link {
                Some(link) => format!(
                    "SMC-R by {} port {}, from {} to {}",
                    link.device, link.port, link.gid, link.peer_gid
                ),
                None => "SMC-R".into(),
            };
            report.passed("negotiation", text);
        }
        Mode::Tcp => {
            let (reason, peer) = (entry.fallback.reason, entry.fallback.peer);
            let words = match peer {
                0 => in_words(reason),
                peer => format!("{}; the peer says: {}", in_words(reason), in_words(peer)),
            };
            let advice = advice(reason, peer);
            // All of these come before, or in place of, the peer's first answer.
            if matches!(reason, 0x0301_0000..=0x0301_0003) {
                report.failed("option", words, advice);
            } else {
                if reason == 0x0500_0000 {
                    report.passed("option", "the peer's SYN-ACK has the SMC option");
                }
                report.failed("negotiation", format!("TCP: {words}"), advice);
            }
        }
        mode => report.note("negotiation", format!("{mode}")),
    }
}

/// What our server says of its end; `None` if it is none of ours.
fn greeting(stream: &mut impl Read) -> Option<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < 200 {
        match stream.read(&mut byte) {
            Ok(1) if byte == *b"\n" => {
                let text = String::from_utf8(line).ok()?;
                return text
                    .strip_prefix(NAME)?
                    .strip_prefix(' ')
                    .map(str::to_owned);
            }
            Ok(1) => line.extend(byte),
            _ => return None,
        }
    }
    None
}

/// Connects to the peer, and looks.
pub(crate) fn connect(report: &mut Report, peer: SocketAddr) -> Result<(), Error> {
    let mut socket = socket(peer.ip())?;
    if let Err(error) = socket.connect_timeout(&SockAddr::from(peer), PATIENCE) {
        let (text, what_to_do) = match error.kind() {
            io::ErrorKind::ConnectionRefused => (
                format!(
                    "{} answers, but nobody listens on port {}",
                    peer.ip(),
                    peer.port()
                ),
                // Without -6 ours serves IPv4 only.
                match peer.ip() {
                    IpAddr::V4(_) => "run 'smc_chk -S' there, or name the port of a server with -p",
                    IpAddr::V6(_) => {
                        "run 'smc_chk -6 -S' there, or name the port of a server with -p"
                    }
                },
            ),
            _ => (
                format!("no connection to {peer}: {error}"),
                "look after the network and firewalls between the hosts: 'ping', 'tracepath'",
            ),
        };
        report.failed("peer", text, what_to_do);
        return Ok(());
    }
    report.passed("peer", format!("{peer} has taken the connection"));
    let entry = entry(&socket)?;
    report.detail("socket", || format!("{entry:?}"));
    judge(report, &entry);
    socket
        .set_read_timeout(Some(GREETING))
        .map_err(system("setting a time-out"))?;
    match greeting(&mut socket) {
        Some(words) => report.passed("data", format!("the peer's smc_chk says: {words}")),
        None => report.note("data", "the peer's server is no smc_chk: no data was sent"),
    }
    Ok(())
}

/// An end of a connection in a few words.
fn words(entry: &Entry) -> String {
    match entry.mode {
        Mode::Tcp if entry.fallback.peer != 0 => format!(
            "TCP: {}; the peer says: {}",
            in_words(entry.fallback.reason),
            in_words(entry.fallback.peer)
        ),
        Mode::Tcp => format!("TCP: {}", in_words(entry.fallback.reason)),
        Mode::SmcR => "SMC-R".into(),
        mode => mode.to_string(),
    }
}

/// The first port that is free from `port` on.
fn listen(ipv6: bool, port: u16) -> Result<(Socket, u16), Error> {
    let any: IpAddr = if ipv6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    for port in port..=u16::MAX {
        let socket = socket(any)?;
        let bound = socket
            .bind(&SockAddr::from(SocketAddr::new(any, port)))
            .and_then(|()| socket.listen(16));
        match bound {
            Ok(()) => return Ok((socket, port)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(system("listening")(error)),
        }
    }
    Err(Error::Refused(format!("no port from {port} on is free")))
}

/// Serves checks of other hosts.
pub(crate) fn serve(ipv6: bool, port: u16, json: bool) -> Result<(), Error> {
    let (listener, port) = listen(ipv6, port)?;
    let say = |line: String| print(&(line + "\n"));
    say(if json {
        json!({ "port": port }).to_string()
    } else {
        format!("Server started on port {port}")
    })?;
    loop {
        let (mut connection, _) = listener.accept().map_err(system("accepting"))?;
        let entry = entry(&connection)?;
        let (peer, words) = (entry.peer, words(&entry));
        say(if json {
            json!({
                "peer": peer.ip(), "port": peer.port(), "mode": entry.mode.to_string(),
                "reason": entry.fallback.reason, "peer_diagnosis": entry.fallback.peer,
            })
            .to_string()
        } else {
            format!("{peer}: {words}")
        })?;
        // A client that has gone is no concern of the next one's, and one that stays silent must not keep it out.
        let _ = connection
            .write_all(format!("{NAME} {words}\n").as_bytes())
            .and_then(|()| connection.set_read_timeout(Some(GREETING)))
            .and_then(|()| connection.read(&mut [0]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smc_tools_common::diag::{Fallback, Link, State};

    fn an_entry(mode: Mode, reason: u32, peer: u32) -> Entry {
        Entry {
            family: AF_SMC,
            state: State::ACTIVE,
            mode,
            local: "10.9.0.1:1000".parse().unwrap(),
            peer: "10.9.0.2:37373".parse().unwrap(),
            ifindex: 0,
            cookie: 1,
            uid: 0,
            inode: 2,
            shutdown: 0,
            fallback: Fallback { reason, peer },
            conn: None,
            link: None,
            dmb: None,
        }
    }

    fn judged(entry: &Entry) -> String {
        let mut report = Report::default();
        judge(&mut report, entry);
        report.text()
    }

    #[test]
    fn a_connection_by_rdma_passes_with_its_link() {
        let mut entry = an_entry(Mode::SmcR, 0, 0);
        entry.link = Some(Link {
            id: 1,
            device: "rxe0".into(),
            port: 1,
            gid: "::ffff:a09:1".into(),
            peer_gid: "::ffff:a09:2".into(),
            server: false,
        });
        let text = judged(&entry);
        assert!(text.contains("SMC-R by rxe0 port 1"), "{text}");
        assert!(text.lines().all(|line| line.starts_with("ok")), "{text}");
    }

    #[test]
    fn a_fallback_fails_where_it_happened_with_an_advice() {
        let text = judged(&an_entry(Mode::Tcp, 0x0301_0000, 0));
        assert!(text.starts_with("failed  option       PEERNOSMC"), "{text}");
        assert!(text.contains("-> load SMC on the peer"), "{text}");
        let text = judged(&an_entry(Mode::Tcp, 0x0500_0000, 0x0303_0008));
        assert!(text.starts_with("ok      option"), "{text}");
        assert!(text.contains("NOUEID"), "{text}");
        assert!(text.contains("'smcr ueid add NAME'"), "{text}");
        // Found out before anything was sent, so nothing is known of the peer.
        let text = judged(&an_entry(Mode::Tcp, 0x0303_0002, 0));
        assert!(text.starts_with("failed  negotiation"), "{text}");
        // Every reason has an advice of one line.
        for code in 0..0x0fff {
            let code = code << 16;
            assert_eq!(advice(code, 0).lines().count(), 1);
            assert_eq!(advice(0x0500_0000, code).lines().count(), 1);
        }
    }

    #[test]
    fn only_our_own_server_is_understood() {
        let heard = |text: &str| greeting(&mut text.as_bytes());
        assert_eq!(heard("smc_chk SMC-R\n").as_deref(), Some("SMC-R"));
        assert_eq!(heard("SSH-2.0-OpenSSH\n"), None);
        assert_eq!(heard("smc_chk SMC-R"), None);
        assert_eq!(heard(""), None);
        assert_eq!(heard(&"x".repeat(1000)), None);
    }

    #[test]
    fn an_end_is_told_in_words() {
        assert_eq!(words(&an_entry(Mode::SmcR, 0, 0)), "SMC-R");
        assert_eq!(
            words(&an_entry(Mode::Tcp, 0x0301_0000, 0)),
            "TCP: PEERNOSMC (peer did not indicate SMC)"
        );
    }
}
