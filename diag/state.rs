// SPDX-License-Identifier: GPL-2.0

//! The state of all link groups as text, for developers: `/sys/kernel/debug/smc_rs/state`, if the module
//! parameter `debugfs` is 1. Of all namespaces; no ABI.

use crate::smc_core::{
    conn::Conn,
    group::LinkGroup,
    registry, //
};
use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    fmt,
    prelude::*,
};

/// Shows the state, until it is dropped.
pub(crate) struct StateDump {
    // Before its directory.
    _file: Pin<KBox<File<()>>>,
    _dir: Dir,
}

/// Shows the state from now on.
///
/// # Errors
///
/// `ENOMEM`. A kernel without debugfs shows nothing.
pub(crate) fn show() -> Result<StateDump> {
    let dir = Dir::new(c"smc_rs");
    let file = dir.read_callback_file(c"state", Ok::<(), Error>(()), &|(),
                                                                       f: &mut fmt::Formatter<
        '_,
    >| write_all(f));
    let file = KBox::pin_init(file, GFP_KERNEL)?;
    Ok(StateDump {
        _file: file,
        _dir: dir,
    })
}

fn write_all(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(registry) = registry::get() else {
        return Ok(());
    };
    let mut result = Ok(());
    registry.for_each_group(
        |_| true,
        |group| {
            if result.is_ok() {
                result = write_group(f, group);
            }
        },
    );
    result
}

fn write_group(f: &mut fmt::Formatter<'_>, group: &LinkGroup) -> fmt::Result {
    let key = group.key();
    let (send, rmb) = group.pool().allocated();
    writeln!(
        f,
        "group {} net {} {:?} {:?} {:?} peer {} connections {}/{} send buffers {send} rmbs {rmb} free rings {}",
        group.id(),
        key.net,
        key.role,
        key.version,
        group.state(),
        key.peer_gid,
        group.connections(),
        group.limits().max_conns,
        group.pool().kept(),
    )?;
    for link in group.links() {
        let (busy, slots) = link.slots().usage();
        let name = link.port().device.name();
        writeln!(
            f,
            "  link {} {:?} {}/{} gid {} qp {} slots {busy}/{slots}{}",
            link.number().0,
            link.state(),
            core::str::from_utf8(name.as_bytes()).unwrap_or("?"),
            link.port().number,
            link.gid(),
            link.qpn().value(),
            if link.is_starved() { " starved" } else { "" },
        )?;
    }
    let mut result = Ok(());
    group.conns().for_each(|conn| {
        if result.is_ok() {
            result = write_conn(f, &conn);
        }
    });
    result
}

fn write_conn(f: &mut fmt::Formatter<'_>, conn: &Conn) -> fmt::Result {
    let seen = conn.inspect();
    write!(
        f,
        "    connection {:#010x} send buffer {} rmb {}",
        seen.token, seen.sndbuf_len, seen.rmb_len
    )?;
    let Some(flow) = &seen.flow else {
        return writeln!(f, " without a peer");
    };
    let (tx, rx) = (&flow.tx, &flow.rx);
    writeln!(
        f,
        " peer's rmb {} prepared {}:{} sent {}:{} done {}:{} written {}:{} peer read {}:{} received {}:{} read {}:{}",
        tx.peer_rmb_len,
        tx.prep.wrap,
        tx.prep.count,
        tx.sent.wrap,
        tx.sent.count,
        tx.fin.wrap,
        tx.fin.count,
        tx.prod.wrap,
        tx.prod.count,
        tx.peer_cons.wrap,
        tx.peer_cons.count,
        rx.prod.wrap,
        rx.prod.count,
        rx.cons.wrap,
        rx.cons.count,
    )
}
