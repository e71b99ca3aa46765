//! The tools that users have (tools/smc-tools), against live sockets and what sock_diag says of them,
//! and unmodified programs under smc_run.

use super::{join, once};
use crate::diag::{self, Entry};
use crate::kind::{Host, Kind};
use crate::mode::{self, Mode};
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, Sock};
use crate::{check, check_eq, rig, Context, Fail, Outcome};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

pub const TESTS: [Test; 12] = [
    once("tools.smcss", 120, smcss),
    once("tools.smcss_watch", 120, smcss_watch),
    once("tools.smcr", 120, smcr),
    once("tools.smcr_stats", 120, smcr_stats),
    once("tools.ueid", 60, ueid),
    once("tools.smc_pnet", 60, smc_pnet),
    once("tools.smc_chk", 120, smc_chk),
    once("tools.smcss_without_module", 120, smcss_without_module),
    once("tools.smc_run_client", 120, smc_run_client),
    once("tools.smc_run_server", 120, smc_run_server),
    once("tools.smc_run_redis", 180, smc_run_redis),
    once("tools.redis_load", 180, redis_load),
];

/// A program on a host, with its standard input and output; killed when dropped.
struct Program {
    child: Child,
    /// Until nobody reads it any more.
    out: Option<BufReader<ChildStdout>>,
}

impl Program {
    fn start(host: Host, line: &str) -> Outcome<Program> {
        let mut child = Command::new("ip")
            .args(["netns", "exec", host.name()])
            .args(line.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .during(line)?;
        let out = child.stdout.take().map(BufReader::new);
        Ok(Program { child, out })
    }

    fn write(&mut self, data: &[u8]) -> Outcome {
        let input = self.child.stdin.as_mut();
        let input = input.ok_or_else(|| Fail("no standard input".into()))?;
        input.write_all(data)?;
        input.flush()?;
        Ok(())
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        check!(
            self.out()?.read_line(&mut line)? > 0,
            "the program has ended"
        );
        Ok(line.trim_end().to_owned())
    }

    fn out(&mut self) -> Outcome<&mut BufReader<ChildStdout>> {
        let out = self.out.as_mut();
        out.ok_or_else(|| Fail("no standard output".into()))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Errors mean that it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What smcss prints on a host: its title line, and the words of each other line.
fn listing(host: Host, options: &str) -> Outcome<(String, Vec<Vec<String>>)> {
    let text = rig::run_on(host, &format!("smcss {options}"))?;
    let mut lines = text.lines();
    let title = lines.next().unwrap_or_default().to_owned();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    Ok((title, lines.map(words).collect()))
}

fn state_name(state: u8) -> &'static str {
    match state {
        1 => "ACTIVE",
        2 => "INIT",
        10 => "LISTEN",
        20 => "PEERCLOSEWAIT1",
        22 => "APPCLOSEWAIT1",
        _ => "a state that no socket here has",
    }
}

/// The words that `smcss -W` has to print about a socket.
fn words(entry: &Entry) -> Vec<String> {
    let address = |address: std::net::SocketAddr| format!("{}:{}", address.ip(), address.port());
    let mut words = vec![
        state_name(entry.state).to_owned(),
        format!("{:05}", entry.uid),
        format!("{:07}", entry.inode),
    ];
    if entry.state == diag::SMC_INIT {
        return words;
    }
    words.push(address(entry.local));
    if entry.state == diag::SMC_LISTEN {
        return words;
    }
    words.push(address(entry.peer));
    words.push(format!("{:04x}", entry.ifindex));
    if entry.mode == diag::SMC_DIAG_MODE_SMCR {
        words.push("SMCR".into());
        return words;
    }
    words.push("TCP".into());
    let codes = entry.fallback;
    words.push(match codes.peer_diagnosis {
        0 => format!("{:#010x}", codes.reason),
        peer => format!("{:#010x}/{peer:#010x}", codes.reason),
    });
    words
}

/// The words of `-d` behind those.
fn debug_words(entry: &Entry) -> Outcome<Vec<String>> {
    let conn = entry.conn.as_ref();
    let conn = conn.ok_or_else(|| Fail("no connection info".into()))?;
    let cursor = |cursor: diag::Cursor| format!("{:04x}:{:08x}", cursor.wrap, cursor.count);
    let flags = |one: u8, two: u8| format!("{one:02x}:{two:02x}");
    let shut = ["<->", "R->", "<-W", "R-W"];
    Ok(vec![
        shut[usize::from(entry.shutdown & 3)].to_owned(),
        format!("{:08x}", conn.token),
        format!("{:08x}", conn.sndbuf_size),
        format!("{:08x}", conn.rmbe_size),
        format!("{:08x}", conn.peer_rmbe_size),
        cursor(conn.rx_prod),
        cursor(conn.rx_cons),
        flags(conn.rx_prod_flags, conn.rx_conn_state_flags),
        cursor(conn.tx_prod),
        cursor(conn.tx_cons),
        flags(conn.tx_prod_flags, conn.tx_conn_state_flags),
        cursor(conn.tx_prep),
        cursor(conn.tx_sent),
        cursor(conn.tx_fin),
    ])
}

/// Every option of smcss, with sockets of every sort, against sock_diag.
fn smcss(ctx: &Ctx) -> Outcome {
    // By RDMA, with data under way one way, and one of them half closed.
    let pair = ctx.pair()?;
    pair.server.send_all(&[1; 5000])?;
    pair.client.recv_all(&mut [0; 2000])?;
    let half = ctx.pair()?;
    half.client.shutdown(libc::SHUT_WR)?;
    // Fallen back: the server has no SMC.
    let (_plain, address) = ctx.plain_listener()?;
    let fallen = Sock::new(Host::A, Kind::Smc4, 0)?;
    fallen.connect(address)?;
    check!(
        matches!(mode::of(&fallen)?, Mode::Fallback(_)),
        "the connection did not fall back"
    );
    // Listening over both IPs, and new.
    let listeners = [Kind::Smc4, Kind::Smc6, Kind::IpSmc4, Kind::IpSmc6]
        .into_iter()
        .map(|kind| -> Outcome<Sock> {
            let sock = Sock::new(Host::A, kind, 0)?;
            sock.bind(Host::A.address(kind, 0))?;
            sock.listen(1)?;
            Ok(sock)
        })
        .collect::<Outcome<Vec<Sock>>>()?;
    let new = Sock::new(Host::A, Kind::Smc4, 0)?;
    // Until nothing moves any more.
    let all = settled(diag::WITH_CONNINFO | diag::WITH_LGRINFO)?;
    check_eq!(all.len(), 8, "sockets of host A");
    let only = |keep: &dyn Fn(&Entry) -> bool| -> Vec<Vec<String>> {
        all.iter().filter(|entry| keep(entry)).map(words).collect()
    };
    let connected = |entry: &Entry| !matches!(entry.state, diag::SMC_INIT | diag::SMC_LISTEN);
    let by_rdma = |entry: &Entry| connected(entry) && entry.mode == diag::SMC_DIAG_MODE_SMCR;

    let (title, lines) = listing(Host::A, "-W")?;
    check_eq!(
        title,
        "State          UID   Inode   Local Address           Peer Address            Intf Mode",
        "title"
    );
    check_eq!(lines, only(&connected), "smcss -W");
    check_eq!(lines.len(), 3, "connections");
    check_eq!(listing(Host::A, "-aW")?.1, only(&|_| true), "smcss -aW");
    check_eq!(
        listing(Host::A, "--listening --wide")?.1,
        only(&|entry| entry.state == diag::SMC_LISTEN),
        "smcss --listening --wide"
    );
    check_eq!(
        listing(Host::A, "-D")?.1,
        Vec::<Vec<String>>::new(),
        "smcss -D"
    );

    // Long addresses are cut: none of these is.
    check_eq!(listing(Host::A, "")?.1, lines, "smcss");

    let mut expected = Vec::new();
    for entry in all.iter().filter(|entry| by_rdma(entry)) {
        let link = entry.link.as_ref();
        let link = link.ok_or_else(|| Fail("no link info".into()))?;
        let mut line = words(entry);
        line.extend(debug_words(entry)?);
        line.extend([
            ["CLNT", "SERV"][usize::from(link.role)].to_owned(),
            link.ibname.clone(),
            format!("{:02x}", link.ibport),
            format!("{:02x}", link.link_id),
            link.gid.clone(),
            link.peer_gid.clone(),
        ]);
        expected.push(line);
    }
    let (title, lines) = listing(Host::A, "-dRW")?;
    check_eq!(lines, expected, "smcss -dRW");
    check_eq!(lines.len(), 2, "connections by RDMA");
    check!(
        lines.iter().any(|line| line[7] == "<-W") && lines.iter().any(|line| line[7] == "<->"),
        "shutdown: {lines:?}"
    );
    check!(
        title.ends_with("Peer-GID") && title.contains(" rxprod-Cursor "),
        "title of -dR: {title}"
    );

    json(&all)?;
    for options in ["-l -a", "-R -D", "-x", "--count 1"] {
        check!(
            rig::run_on(Host::A, &format!("smcss {options}")).is_err(),
            "smcss {options} succeeded"
        );
    }
    drop((pair, half, fallen, listeners, new));
    sys::eventually("smcss lists nothing", || {
        let text = rig::run_on(Host::A, "smcss -a");
        let text = text?;
        Ok(text.lines().count() == 1)
    })?;
    Ok(())
}

/// The sockets of host A, when two lists in a row are the same.
fn settled(extensions: u8) -> Outcome<Vec<Entry>> {
    sys::enter(Host::A)?;
    let mut before = String::new();
    let mut all = Vec::new();
    sys::eventually("nothing moves", || {
        all = diag::dump(extensions)?;
        let now = format!("{all:?}");
        let same = now == before;
        before = now;
        Ok(same)
    })?;
    Ok(all)
}

/// `smcss --json` has each socket with what there is of it.
fn json(all: &[Entry]) -> Outcome {
    let text = rig::run_on(Host::A, "smcss -a --json")?;
    check_eq!(text.lines().count(), 1, "lines of JSON");
    let parts: Vec<&str> = text.split("{\"state\":").skip(1).collect();
    check_eq!(parts.len(), all.len(), "sockets in the JSON");
    for (part, entry) in parts.iter().zip(all) {
        let mut wanted = vec![
            format!("\"{}\",\"mode\":", state_name(entry.state)),
            format!("\"inode\":{},\"cookie\":{},", entry.inode, entry.cookie),
            format!(
                "\"local\":{{\"address\":\"{}\",\"port\":{}}}",
                entry.local.ip(),
                entry.local.port()
            ),
            format!(
                "\"shutdown\":{{\"receive\":{},\"send\":{}}}",
                entry.shutdown & 1 != 0,
                entry.shutdown & 2 != 0
            ),
        ];
        if entry.mode == diag::SMC_DIAG_MODE_FALLBACK_TCP {
            wanted.push(format!(
                "\"fallback\":{{\"reason\":{},\"text\":\"peer did not indicate SMC\"",
                entry.fallback.reason
            ));
        } else {
            wanted.push("\"fallback\":null".into());
        }
        if let (Some(conn), Some(link)) = (&entry.conn, &entry.link) {
            wanted.push(format!(
                "\"connection\":{{\"token\":{},\"sndbuf\":{},\"rcvbuf\":{},",
                conn.token, conn.sndbuf_size, conn.rmbe_size
            ));
            wanted.push(format!(
                "\"rx_prod\":{{\"wrap\":{},\"count\":{}}}",
                conn.rx_prod.wrap, conn.rx_prod.count
            ));
            wanted.push(format!("\"ib_device\":\"{}\"", link.ibname));
        } else {
            wanted.push("\"connection\":null,\"link\":null".into());
        }
        for text in wanted {
            check!(part.contains(&text), "no {text} in {part}");
        }
    }
    Ok(())
}

/// Rates are there when data goes and only then; the end of the output ends smcss.
fn smcss_watch(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let inode = format!("{:07}", client.inode()?);
    let mut watch = Program::start(Host::A, "smcss --watch=0.1")?;
    check!(
        watch.line()?.ends_with("Mode Sent/s   Received/s"),
        "title of --watch"
    );
    // The rates of the client's next listing.
    let next = |watch: &mut Program| -> Outcome<(String, String)> {
        loop {
            let line = watch.line()?;
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.get(2) == Some(&inode.as_str()) {
                check_eq!((words.len(), words[6]), (9, "SMCR"), "words of '{line}'");
                return Ok((words[7].to_owned(), words[8].to_owned()));
            }
        }
    };
    let pair = |sent: &str, received: &str| (sent.to_owned(), received.to_owned());
    check_eq!(next(&mut watch)?, pair("-", "-"), "first rates");
    check_eq!(next(&mut watch)?, pair("0", "0"), "rates without data");
    client.send_all(&[1; 3000])?;
    let mut seen = false;
    loop {
        let (sent, received) = next(&mut watch)?;
        check_eq!(received, "0", "received before anything was sent back");
        // It may be sent in more than one part.
        match (seen, sent.as_str()) {
            (false, "0") => {}
            (true, "0") => break,
            _ => seen = true,
        }
    }
    server.send_all(&[2; 3000])?;
    loop {
        let (sent, received) = next(&mut watch)?;
        if received != "0" {
            check_eq!(sent, "0", "sent when nothing goes any more");
            break;
        }
    }
    // As `| head` does.
    watch.out = None;
    check_eq!(
        watch.child.wait()?.code(),
        Some(0),
        "exit code when nobody reads any more"
    );
    // A number of listings, as JSON.
    let text = rig::run_on(Host::A, "smcss --json --watch=0.1 --count=3")?;
    let rates = |line: &str| line.contains("\"rate\":{\"sent_bytes_per_second\":0,");
    let seen: Vec<bool> = text.lines().map(rates).collect();
    check_eq!(seen, [false, true, true], "rates in JSON");
    Ok(())
}

/// A program on a host that ends: its exit code, and what it said on both ways.
fn said(host: Host, line: &str) -> Outcome<(i32, String)> {
    let output = Command::new("ip")
        .args(["netns", "exec", host.name()])
        .args(line.split_whitespace())
        .output()
        .during(line)?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    let code = output.status.code();
    let code = code.ok_or_else(|| Fail(format!("{line}: ended by a signal")))?;
    Ok((code, text))
}

/// The words of each line below the title.
fn rows(host: Host, line: &str) -> Outcome<Vec<Vec<String>>> {
    let (code, text) = said(host, line)?;
    check_eq!(code, 0, "exit code of {line}: {text}");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    Ok(text.lines().skip(1).map(words).collect())
}

/// smcr's devices, link groups and links agree with what sock_diag says of the connections on them.
fn smcr(ctx: &Ctx) -> Outcome {
    let pairs = [ctx.pair()?, ctx.pair()?];
    for (host, role, sock) in [
        (Host::A, "CLNT", &pairs[0].client),
        (Host::B, "SERV", &pairs[0].server),
    ] {
        sys::enter(host)?;
        let inode = sock.inode()?;
        let entries = diag::dump(diag::WITH_LGRINFO)?;
        let mine = entries.iter().find(|entry| entry.inode == inode);
        let link = mine.and_then(|entry| entry.link.as_ref());
        let link = link.ok_or_else(|| Fail("no link info".into()))?;
        let links = rows(host, "smcr -dd linkgroup link-show")?;
        let gids = [link.gid.as_str(), link.peer_gid.as_str()];
        let line = links
            .iter()
            .find(|line| line.len() == 12 && line[10..] == gids)
            .ok_or_else(|| Fail(format!("no link {gids:?} in {links:?}")))?;
        check_eq!(
            (
                line[1].as_str(),
                line[2].as_str(),
                line[3].as_str(),
                line[4].as_str()
            ),
            (role, "SINGLE", host.netdev(), "LINK_ACTIVE"),
            "role, type, network device, state"
        );
        check_eq!(line[5], "2", "connections of the link");
        check_eq!(
            (line[8].as_str(), line[9].parse::<u8>()),
            (link.ibname.as_str(), Ok(link.ibport)),
            "device and port"
        );
        let groups = rows(host, &format!("smcr linkgroup show {}", line[0]))?;
        check_eq!(groups.len(), 1, "groups of that number");
        check_eq!(
            (&groups[0][0], groups[0][1].as_str(), groups[0][4].as_str()),
            (&line[0], role, "2"),
            "number, role, connections"
        );
        let none = rows(host, "smcr linkgroup ibdev nosuch")?;
        check!(none.is_empty(), "groups of no device: {none:?}");
        let devices = rows(host, &format!("smcr device netdev {}", host.netdev()))?;
        check_eq!(devices.len(), 1, "devices of the host's network device");
        check_eq!(
            devices[0][..4],
            [host.netdev(), host.rdma_device(), "1", "ACTIVE"],
            "device"
        );
        let (_, json) = said(host, "smcr --json linkgroup link-show")?;
        for text in [
            format!("\"id\":\"{}\"", line[0]),
            format!("\"peer_gid\":\"{}\"", link.peer_gid),
            format!("\"ib_device\":\"{}\"", link.ibname),
        ] {
            check!(json.contains(&text), "no {text} in {json}");
        }
    }
    let (code, text) = said(Host::A, "smcr info")?;
    check!(
        code == 0
            && text.contains("SMC Version:      2.1\n")
            && text.contains("SMC-R Features:   v1 v2\n"),
        "smcr info: {text}"
    );
    let (code, text) = said(Host::A, "smcd linkgroup")?;
    check!(
        code == 0 && text.contains("there are no SMC-D"),
        "smcd linkgroup: {text}"
    );
    let [kept, closed] = pairs;
    drop(closed);
    sys::eventually("smcr counts one connection less", || {
        let links = rows(Host::A, "smcr linkgroup link-show");
        let links = links?;
        Ok(links
            .iter()
            .any(|line| line[4] == "LINK_ACTIVE" && line[5] == "1"))
    })?;
    drop(kept);
    Ok(())
}

/// The number behind a name in a line of JSON.
fn number(json: &str, name: &str) -> Outcome<u64> {
    let (_, rest) = json
        .split_once(&format!("\"{name}\":"))
        .ok_or_else(|| Fail(format!("no {name} in {json}")))?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().during(name)
}

/// Statistics count the program's own bytes and calls, from the last reset on; rates and reasons are there.
fn smcr_stats(ctx: &Ctx) -> Outcome {
    const BYTES: usize = 30_000;
    let pair = ctx.pair()?;
    for host in [Host::A, Host::B] {
        check_eq!(said(host, "smcr stats reset")?.0, 0, "smcr stats reset");
    }
    pair.client.send_all(&[7; BYTES])?;
    pair.server.recv_all(&mut [0; BYTES])?;
    let (_, client) = said(Host::A, "smcr stats json")?;
    let (_, server) = said(Host::B, "smcr stats --json")?;
    check_eq!(number(&client, "SMC_TX_BYTES")?, BYTES as u64, "bytes sent");
    check_eq!(
        number(&client, "SMC_RX_BYTES")?,
        0,
        "bytes received by the client"
    );
    check_eq!(
        number(&server, "SMC_RX_BYTES")?,
        BYTES as u64,
        "bytes received"
    );
    check_eq!(
        number(&client, "SMC_CLNT_V2_SUCC_CNT")?,
        0,
        "connections since the reset"
    );
    let (_, all) = said(Host::A, "smcr stats -a --json")?;
    check!(
        number(&all, "SMC_CLNT_V2_SUCC_CNT")? >= 1,
        "connections since the module was loaded: {all}"
    );
    // A fallback: the server has no SMC.
    let (_plain, address) = ctx.plain_listener()?;
    let fallen = Sock::new(Host::A, Kind::Smc4, 0)?;
    fallen.connect(address)?;
    let (_, text) = said(Host::A, "smcr -d stats")?;
    let words: Vec<&str> = text.split_whitespace().collect();
    check!(
        words
            .windows(3)
            .any(|words| words == ["Client", "PEERNOSMC", "1"]),
        "smcr -d stats: {text}"
    );
    let (_, json) = said(Host::A, "smcr stats --json")?;
    check!(
        json.contains("{\"count\":1,\"name\":\"PEERNOSMC\",\"reason\":50397184,"),
        "smcr stats --json: {json}"
    );
    // Rates, while data goes.
    let mut watch = Program::start(Host::A, "smcr stats --watch=0.2 --json")?;
    let mut went = 0;
    while went == 0 {
        pair.client.send_all(&[7; 1000])?;
        pair.server.recv_all(&mut [0; 1000])?;
        let line = watch.line()?;
        let (_, rates) = line
            .split_once("\"per_second\":")
            .ok_or_else(|| Fail(format!("no rates in {line}")))?;
        went = number(rates, "tx_bytes")?;
    }
    Ok(())
}

/// Enterprise IDs are set, listed and refused.
fn ueid(_: &Ctx) -> Outcome {
    /// So that the tests that follow find the host's own.
    struct Default;
    impl Drop for Default {
        fn drop(&mut self) {
            for line in ["smcr ueid flush", "smcr ueid add SMC-RS.DEFAULT"] {
                if let Err(fail) = rig::run_on(Host::A, line) {
                    eprintln!("# {fail}");
                }
            }
        }
    }
    let _default = Default;
    let list = || said(Host::A, "smcr ueid");
    check_eq!(
        list()?,
        (0, "SMC-RS.DEFAULT\n".into()),
        "IDs of a new namespace"
    );
    check_eq!(
        said(Host::A, "smcr ueid add RACK-1.A")?,
        (0, String::new()),
        "adding"
    );
    check_eq!(list()?, (0, "RACK-1.A\n".into()), "IDs with the first one");
    for (line, reason) in [
        ("smcr ueid add RACK-1.A", "is there already"),
        ("smcr ueid add rack", "'r'"),
        ("smcr ueid del RACK-2", "there is no RACK-2"),
        ("smcd seid enable", "no system EID"),
    ] {
        let (code, text) = said(Host::A, line)?;
        check!(
            code == 1 && text.contains(reason) && text.lines().count() == 1,
            "{line}: {text}"
        );
    }
    check_eq!(said(Host::A, "smcr ueid del RACK-1.A")?.0, 0, "deleting");
    check_eq!(list()?, (0, String::new()), "IDs when the last one is gone");
    let (code, text) = said(Host::A, "smc_chk")?;
    check!(
        code == 1 && text.contains("failed  UEID") && text.contains("-> run 'smcr ueid add NAME'"),
        "smc_chk without an ID: {text}"
    );
    Ok(())
}

/// The table of physical networks is changed, listed, and seen by the other tools.
fn smc_pnet(_: &Ctx) -> Outcome {
    struct Empty;
    impl Drop for Empty {
        fn drop(&mut self) {
            if let Err(fail) = rig::run_on(Host::A, "smc_pnet -f") {
                eprintln!("# {fail}");
            }
        }
    }
    let _empty = Empty;
    let list = || said(Host::A, "smc_pnet");
    check_eq!(list()?, (0, String::new()), "an empty table");
    let netdev = Host::A.netdev();
    for line in [
        format!("smc_pnet -a NET1 -I {netdev}"),
        "smc_pnet --add NET2 --interface later0".into(),
    ] {
        check_eq!(said(Host::A, &line)?, (0, String::new()), "adding");
    }
    let (_, text) = list()?;
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    check_eq!(
        lines,
        [
            format!("NET1 {netdev} n/a 255"),
            "NET2 later0 n/a 255".into()
        ],
        "the table"
    );
    let (_, text) = said(Host::A, "smc_pnet -s NET2 --json")?;
    check_eq!(
        text.trim(),
        "{\"entries\":[{\"ib_device\":null,\"netdev\":\"later0\",\"pnetid\":\"NET2\",\"port\":null}]}",
        "an entry as JSON"
    );
    check_eq!(
        said(Host::A, &format!("smc_chk -i {netdev}"))?,
        (0, "NET1*\n".into()),
        "PNETID of the interface"
    );
    // Its own device is in no network.
    for line in ["smc_chk".to_owned(), format!("smc_chk {netdev}")] {
        let (code, text) = said(Host::A, &line)?;
        check!(
            code == 1 && text.contains("no RDMA device is on NET1"),
            "{line} of an interface that is alone in its network: {text}"
        );
    }
    for (line, reason) in [
        (
            format!("smc_pnet -a NET3 -I {netdev}"),
            "has a physical network already",
        ),
        ("smc_pnet -d NET3".into(), "there is no NET3"),
        ("smc_pnet -a NET_3 -I eth9".into(), "letters and digits"),
    ] {
        let (code, text) = said(Host::A, &line)?;
        check!(
            code == 1 && text.contains(reason) && text.lines().count() == 1,
            "{line}: {text}"
        );
    }
    check_eq!(said(Host::A, "smc_pnet -d NET2")?.0, 0, "deleting");
    check_eq!(list()?.1.lines().count(), 1, "entries that are left");
    check_eq!(said(Host::A, "smc_pnet -f")?.0, 0, "flushing");
    check_eq!(list()?, (0, String::new()), "the table at the end");
    Ok(())
}

/// What smc_chk says is what is so: of a machine in order, of peers with and without SMC.
fn smc_chk(ctx: &Ctx) -> Outcome {
    let (code, text) = said(Host::A, "smc_chk")?;
    check!(
        code == 0
            && text.contains(&format!(
                "{} port 1, for {}, is active",
                Host::A.rdma_device(),
                Host::A.netdev()
            )),
        "smc_chk: {text}"
    );
    let peer = Host::B.address(Kind::Tcp4, 0).ip();
    let (port, closed) = (ctx.own_port()?, ctx.own_port()?);
    let mut server = Program::start(Host::B, &format!("smc_chk -S -p {port}"))?;
    check_eq!(
        server.line()?,
        format!("Server started on port {port}"),
        "the server"
    );
    let (code, text) = said(Host::A, &format!("smc_chk -C {peer} -p {port}"))?;
    let link = format!("SMC-R by {} port 1", Host::A.rdma_device());
    check!(
        code == 0 && text.contains(&link) && text.contains("the peer's smc_chk says: SMC-R"),
        "smc_chk of a peer with SMC: {text}"
    );
    check!(server.line()?.ends_with(": SMC-R"), "what the server saw");
    let (code, text) = said(Host::A, &format!("smc_chk -C {peer} -p {closed}"))?;
    check!(
        code == 1 && text.contains(&format!("nobody listens on port {closed}")),
        "a closed port: {text}"
    );
    let (_plain, address) = ctx.plain_listener()?;
    let port = address.port();
    let (code, text) = said(Host::A, &format!("smc_chk -C {peer} -p {port}"))?;
    check!(
        code == 1
            && text.contains("failed  option       PEERNOSMC")
            && text.contains("-> load SMC on the peer"),
        "smc_chk of a peer without SMC: {text}"
    );
    let own = Host::A.address(Kind::Tcp4, 0).ip();
    let (code, text) = said(Host::A, &format!("smc_chk -C {own} -p 40000"))?;
    check!(
        code == 1 && text.contains("this host's own address"),
        "its own address: {text}"
    );
    let (code, text) = said(Host::A, "smc_chk nosuch")?;
    check!(
        code == 1 && text.contains("there is no nosuch"),
        "no such interface: {text}"
    );
    Ok(())
}

/// smcss says what to do, and does not load the module; smc_run does.
fn smcss_without_module(_: &Ctx) -> Outcome {
    // Whatever happens, the tests that follow want the module.
    struct Reload;
    impl Drop for Reload {
        fn drop(&mut self) {
            if let Err(fail) = rig::module_load() {
                eprintln!("# {fail}");
            }
        }
    }
    let _reload = Reload;
    sys::eventually("rmmod succeeds", || {
        Ok(rig::run(&format!("rmmod {}", rig::MODULE)).is_ok())
    })?;
    let output = Command::new("smcss").arg("-a").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    check_eq!(
        (output.status.code(), said.as_ref(), output.stdout.len()),
        (
            Some(1),
            "smcss: error: the SMC module is not loaded: run 'modprobe smc_rs' as root\n",
            0
        ),
        "smcss without the module"
    );
    check!(!rig::module_loaded(), "smcss has loaded the module");
    // A program that makes a socket; that nobody listens is its affair.
    let output = Command::new("smc_run")
        .args(["-d", "socat", "-u", "/dev/null", "TCP4:127.0.0.1:1"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    check!(
        rig::module_loaded() && said.contains("libsmc-preload: map sock to AF_SMC"),
        "smc_run without the module: {said}"
    );
    let output = Command::new("smc_run")
        .args(["-d", "-f", "inet", "socat", "-u", "/dev/null"])
        .arg("TCP4:127.0.0.1:1")
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    check!(
        said.contains("libsmc-preload: map sock to IPPROTO_SMC"),
        "smc_run -f inet: {said}"
    );
    Ok(())
}

/// What sock_diag says of the connection that ends at the peer of `server`, on host A.
fn other_end(server: &Sock) -> Outcome<Entry> {
    let (local, peer) = (server.peer()?, server.local()?);
    sys::enter(Host::A)?;
    diag::dump(diag::WITH_CONNINFO | diag::WITH_LGRINFO)?
        .into_iter()
        .find(|entry| (entry.local, entry.peer) == (local, peer))
        .ok_or_else(|| Fail(format!("host A has no SMC socket {local}")))
}

/// socat as the client: its connection goes by RDMA, with the sizes that were asked for.
fn smc_run_client(ctx: &Ctx) -> Outcome {
    for (kind, family, run) in [
        (Kind::Smc4, 43, "smc_run -r 64k -t 128k"),
        (Kind::Smc6, 43, "smc_run"),
        (Kind::IpSmc4, 2, "smc_run -f inet"),
        (Kind::IpSmc6, 10, "smc_run -f auto"),
        // A child of the program.
        (Kind::Smc4, 43, "smc_run timeout 60"),
    ] {
        let ctx = ctx.with_kind(kind);
        let (listener, address) = ctx.listener(1)?;
        let target = format!("{}:{address}", if kind.is_v6() { "TCP6" } else { "TCP4" });
        let mut client = Program::start(Host::A, &format!("{run} socat - {target}"))?;
        let server = listener.accept()?;
        ctx.prove(Host::B, &server).during(run)?;
        client.write(b"question\n")?;
        let mut question = [0; 9];
        server.recv_all(&mut question)?;
        check_eq!(&question, b"question\n", "what the server heard");
        server.send_all(b"answer\n")?;
        check_eq!(client.line()?, "answer", "what the client heard");
        let entry = other_end(&server).during(run)?;
        check_eq!(entry.family, family, "family of the socket of '{run}'");
        let conn = match (entry.mode, &entry.conn) {
            (diag::SMC_DIAG_MODE_SMCR, Some(conn)) => conn,
            // IPv6 over RoCEv2: there is no SMC-Rv2 for it.
            _ if kind.is_v6() => continue,
            _ => return Err(Fail(format!("'{run}': {entry:?}"))),
        };
        if run.contains("64k") {
            check_eq!(
                (conn.rmbe_size, conn.sndbuf_size),
                (64 << 10, 128 << 10),
                "sizes that were asked for"
            );
        }
        drop(server);
        let mut rest = String::new();
        client.out()?.read_to_string(&mut rest)?;
        check_eq!(rest, "", "the end of the stream");
    }
    Ok(())
}

/// socat as the server, which sends back what it gets.
fn smc_run_server(ctx: &Ctx) -> Outcome {
    const PORT: u16 = 7007;
    let _server = Program::start(
        Host::B,
        &format!("smc_run socat TCP4-LISTEN:{PORT},bind=10.9.0.2,reuseaddr PIPE"),
    )?;
    let address = Host::B.address(ctx.kind, PORT);
    sys::eventually("the server listens on an SMC socket", || {
        sys::enter(Host::B)?;
        Ok(diag::dump(0)?
            .iter()
            .any(|entry| entry.state == diag::SMC_LISTEN && entry.local == address))
    })?;
    let client = ctx.connect(address)?;
    ctx.prove(Host::A, &client)?;
    client.send_all(b"to and fro")?;
    let mut got = [0; 10];
    client.recv_all(&mut got)?;
    check_eq!(&got, b"to and fro", "what came back");
    Ok(())
}

/// redis-server on host B, by smc_run, and where it listens.
fn redis_server(ctx: &Ctx) -> Outcome<(Program, SocketAddr)> {
    let server = Program::start(
        Host::B,
        "smc_run redis-server --bind 10.9.0.2 --port 6379 --protected-mode no --save --dir /tmp --logfile /tmp/redis.log",
    )?;
    let address = Host::B.address(ctx.kind, 6379);
    sys::eventually("redis-server listens on an SMC socket", || {
        sys::enter(Host::B)?;
        Ok(diag::dump(0)?
            .iter()
            .any(|entry| entry.state == diag::SMC_LISTEN && entry.local == address))
    })?;
    Ok((server, address))
}

/// Redis, both sides: every connection of its port is SMC-R.
fn smc_run_redis(ctx: &Ctx) -> Outcome {
    let (_server, address) = redis_server(ctx)?;
    let text = rig::run_on(Host::A, "smc_run redis-cli -h 10.9.0.2 set key value")?;
    check_eq!(text.trim(), "OK", "answer to SET");
    // One that stays: it waits for messages.
    let mut waiting = Program::start(
        Host::A,
        "smc_run redis-cli -h 10.9.0.2 --csv subscribe news",
    )?;
    check_eq!(waiting.line()?, "\"subscribe\",\"news\",1", "subscription");
    for (host, remote) in [(Host::A, true), (Host::B, false)] {
        sys::enter(host)?;
        let connections: Vec<Mode> = mode::connections()?
            .into_iter()
            .filter(|(entry, _)| {
                let end = if remote { entry.peer } else { entry.local };
                end == address && entry.state == 1
            })
            .map(|(_, mode)| mode)
            .collect();
        check_eq!(
            connections,
            [Mode::Rdma],
            "connections of host {}",
            host.name()
        );
        let (_, lines) = listing(host, "-R")?;
        let port = address.to_string();
        let mine: Vec<&Vec<String>> = lines
            .iter()
            .filter(|line| line[0] == "ACTIVE" && line[if remote { 4 } else { 3 }] == port)
            .collect();
        check_eq!(mine.len(), 1, "lines of smcss -R on host {}", host.name());
        let role = if remote { "CLNT" } else { "SERV" };
        check_eq!(
            (
                mine[0][6].as_str(),
                mine[0][7].as_str(),
                mine[0][8].as_str()
            ),
            ("SMCR", role, host.rdma_device()),
            "mode, role and device"
        );
    }
    let text = rig::run_on(Host::A, "smc_run redis-cli -h 10.9.0.2 publish news paper")?;
    check_eq!(text.trim(), "1", "listeners of the news");
    check_eq!(waiting.line()?, "\"message\",\"news\",\"paper\"", "news");
    Ok(())
}

/// What our clients of Redis have sent and received, and when they are to stop.
#[derive(Default)]
struct Load {
    sent: AtomicU64,
    received: AtomicU64,
    stop: AtomicBool,
}

/// The largest value that the clients set.
const LARGEST: usize = 20_000;

impl Load {
    fn send(&self, sock: &Sock, request: &[u8]) -> Outcome {
        sock.send_all(request)?;
        self.sent.fetch_add(request.len() as u64, Ordering::SeqCst);
        Ok(())
    }

    fn receive(&self, sock: &Sock, answer: &mut [u8]) -> Outcome {
        sock.recv_all(answer)?;
        self.received
            .fetch_add(answer.len() as u64, Ordering::SeqCst);
        Ok(())
    }

    /// Sets values of many sizes and gets them back, until it is told to stop.
    fn run(&self, sock: &Sock, number: usize) -> Outcome {
        for round in 0.. {
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            let length = (number + 1) * (round + 1) * 997 % LARGEST + 1;
            let value = vec![b'a' + (round % 26) as u8; length];
            let (key, bulk) = (format!("key{number}"), format!("${length}\r\n"));
            let head = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n{bulk}", key.len());
            self.send(sock, &[head.as_bytes(), &value, b"\r\n"].concat())?;
            let mut answer = [0; 5];
            self.receive(sock, &mut answer)?;
            check_eq!(&answer, b"+OK\r\n", "answer to SET");
            let get = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
            self.send(sock, get.as_bytes())?;
            let expected = [bulk.as_bytes(), &value, b"\r\n"].concat();
            let mut answer = vec![0; expected.len()];
            self.receive(sock, &mut answer)?;
            check!(answer == expected, "GET {key} gave another value");
        }
        Ok(())
    }

    /// Redis's own counts of bytes in and out, as it makes its answer.
    fn counts_of_redis(&self, sock: &Sock) -> Outcome<(u64, u64)> {
        self.send(sock, b"*2\r\n$4\r\nINFO\r\n$5\r\nstats\r\n")?;
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(b"\r\n") {
            self.receive(sock, &mut byte)?;
            text.push(byte[0]);
        }
        let length = String::from_utf8_lossy(&text[1..]).trim().parse::<usize>();
        let mut text = vec![0; length.during("length of INFO")? + 2];
        self.receive(sock, &mut text)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let count = |name: &str| -> Outcome<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let line = line.ok_or_else(|| Fail(format!("no {name} in {text}")))?;
            line.parse().during(name)
        };
        Ok((
            count("total_net_input_bytes:")?,
            count("total_net_output_bytes:")?,
        ))
    }
}

/// What a host has put on the wire.
struct OnWire {
    packets: u64,
    /// Requests that the RDMA device sent again from some packet on.
    retries: u64,
    /// Of the network device, RDMA's included.
    bytes: u64,
}

impl OnWire {
    fn of(host: Host) -> Outcome<OnWire> {
        sys::enter(host)?;
        let text = sys::read_file("/proc/thread-self/net/dev")?;
        let start = format!("{}:", host.netdev());
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(&start));
        let line = line.ok_or_else(|| Fail(format!("no {start} in {text}")))?;
        let bytes = line.split_whitespace().nth(8).unwrap_or_default();
        Ok(OnWire {
            packets: mode::counter(host, "sent_pkts")?,
            retries: mode::counter(host, "completer_retry_err")?
                + mode::counter(host, "rcvd_rnr_err")?,
            bytes: bytes.parse().during("bytes of a network device")?,
        })
    }

    /// The packets since are what it takes to carry that much by RDMA.
    fn carried(&self, host: Host, said: u64) -> Outcome {
        /// Of Soft-RoCE, for devices with an MTU of 9000.
        const MTU: u64 = 4096;
        // Ethernet, IPv4, UDP, BTH, RETH, padding, ICRC; or the 44 bytes of a CDC message.
        const OVERHEAD: u64 = 14 + 20 + 8 + 12 + 16 + 3 + 4 + 44;
        // As many as Soft-RoCE has under way.
        const WINDOW: u64 = 128;
        // ARP and the like.
        const OTHERS: u64 = 10_000;
        let now = OnWire::of(host)?;
        let packets = now.packets - self.packets;
        let retries = now.retries - self.retries;
        let bytes = now.bytes - self.bytes;
        let most = said + packets * OVERHEAD + retries * WINDOW * MTU + OTHERS;
        check!(
            packets >= said / MTU && (said..=most).contains(&bytes),
            "host {} sent {said} bytes, but {bytes} on the wire, in {packets} RDMA packets with {retries} retries",
            host.name()
        );
        Ok(())
    }
}

/// What the tools say of the sockets of a host that has so many connections with Redis, all under load.
fn under_load(host: Host, connections: usize) -> Outcome {
    let (_, text) = said(host, "smcss --json")?;
    let end = if host == Host::A { "peer" } else { "local" };
    let redis = format!("\"{end}\":{{\"address\":\"10.9.0.2\",\"port\":6379}}");
    let sockets: Vec<&str> = text.split("{\"state\":").skip(1).collect();
    check!(
        sockets.len() == connections
            && sockets.iter().all(|socket| {
                socket.starts_with("\"ACTIVE\",\"mode\":\"SMCR\",") && socket.contains(&redis)
            }),
        "smcss --json on host {}: {text}",
        host.name()
    );
    let used = |text: &str| -> Outcome<String> {
        let mut used = Vec::new();
        for group in text.split("{\"buffers\":").skip(1) {
            // Groups that nobody uses any more stay for a while.
            if number(group, "connections")? > 0 {
                used.push(group.to_owned());
            }
        }
        check_eq!(used.len(), 1, "groups with connections in {text}");
        Ok(used.remove(0))
    };
    let role = if host == Host::A { "client" } else { "server" };
    let (_, text) = said(host, "smcr --json linkgroup")?;
    let group = used(&text)?;
    check!(
        number(&group, "connections")? == connections as u64
            && group.contains(&format!("\"role\":\"{role}\"")),
        "smcr --json linkgroup: {text}"
    );
    let (_, text) = said(host, "smcr --json linkgroup link-show")?;
    let group = used(&text)?;
    let (_, links) = group
        .split_once("\"links\":[")
        .ok_or_else(|| Fail(format!("no links in {text}")))?;
    check!(
        links.matches("\"state\":").count() == 1
            && links.contains("\"state\":\"LINK_ACTIVE\"")
            && links.contains(&format!("\"ib_device\":\"{}\"", host.rdma_device()))
            && number(links, "connections")? == connections as u64,
        "smcr --json linkgroup link-show: {text}"
    );
    Ok(())
}

/// Redis under load: the tools' connections, link groups, links and bytes are those of the programs and the devices.
fn redis_load(ctx: &Ctx) -> Outcome {
    const CONNECTIONS: usize = 8;
    let (_server, address) = redis_server(ctx)?;
    for host in Host::BOTH {
        check_eq!(said(host, "smcr stats reset")?.0, 0, "smcr stats reset");
    }
    let mut socks = Vec::new();
    for _ in 0..CONNECTIONS {
        let sock = ctx.connect(address)?;
        ctx.prove(Host::A, &sock)?;
        socks.push(sock);
    }
    let wires = [OnWire::of(Host::A)?, OnWire::of(Host::B)?];
    let load = Arc::new(Load::default());
    let mut threads = Vec::new();
    for (number, sock) in socks.into_iter().enumerate() {
        let load = load.clone();
        threads.push(std::thread::spawn(move || -> Outcome<Sock> {
            load.run(&sock, number)?;
            Ok(sock)
        }));
    }
    for host in Host::BOTH {
        under_load(host, CONNECTIONS)?;
    }
    // What is sent while the tool runs is counted or not.
    let least = load.sent.load(Ordering::SeqCst);
    let (_, text) = said(Host::A, "smcr stats --json")?;
    let most = load.sent.load(Ordering::SeqCst) + (CONNECTIONS * (LARGEST + 100)) as u64;
    let live = number(&text, "SMC_TX_BYTES")?;
    check!(
        (least..=most).contains(&live) && least > 0,
        "smcr stats says {live} bytes, and the program {least} before and {most} after"
    );
    load.stop.store(true, Ordering::SeqCst);
    let socks: Vec<Sock> = threads.into_iter().map(join).collect::<Outcome<_>>()?;
    check!(
        load.sent.load(Ordering::SeqCst) > least,
        "nothing was sent while the tools ran"
    );
    // Redis's own counts, from its start on: without its answer.
    let received = load.received.load(Ordering::SeqCst);
    let counts = load.counts_of_redis(&socks[0])?;
    let sent = load.sent.load(Ordering::SeqCst);
    check_eq!(counts, (sent, received), "bytes that Redis counts");
    let received = load.received.load(Ordering::SeqCst);
    for (host, wire, rx, tx, conns) in [
        (Host::A, &wires[0], received, sent, "SMC_CLNT_V2_SUCC_CNT"),
        (Host::B, &wires[1], sent, received, "SMC_SRV_V2_SUCC_CNT"),
    ] {
        let (_, text) = said(host, "smcr stats --json")?;
        check_eq!(
            (
                number(&text, "SMC_RX_BYTES")?,
                number(&text, "SMC_TX_BYTES")?,
                number(&text, conns)?
            ),
            (rx, tx, CONNECTIONS as u64),
            "bytes received and sent, and connections, on host {}",
            host.name()
        );
        wire.carried(host, tx)?;
    }
    Ok(())
}
