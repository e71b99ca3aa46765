// SPDX-License-Identifier: GPL-2.0

//! `SMC_PNETID`: which devices are attached to which physical network, by `smc_pnet`.

use super::pnet_abi::{
    self as abi,
    ADD,
    DEL,
    FLUSH,
    GET, //
};
use crate::kapi::prelude::*;
use crate::{
    kapi::genl::{
        Answer,
        Attribute,
        Command,
        Family,
        Part,
        Registration,
        Request, //
    },
    smc_core::{
        group::LinkGroup,
        pnet::PnetId,
        pnet_table::{
            self as table,
            Entry, //
        },
        registry, //
    }, //
};
use kernel::{
    error::Result,
    str::CStr, //
};

/// The family.
pub(crate) struct SmcPnetId;

/// In the order of their numbers: NAME, ETHNAME, IBNAME, IBPORT.
const ATTRIBUTES: &[Attribute] = &[
    Attribute::TerminatedText(16),
    Attribute::TerminatedText(15),
    Attribute::TerminatedText(63),
    Attribute::Byte,
];

const fn command(number: u8, admin: bool, dumps: bool) -> Command {
    Command {
        number,
        admin,
        executes: true,
        dumps,
        attributes: ATTRIBUTES,
    }
}

impl Family for SmcPnetId {
    const NAME: &'static CStr = c"SMC_PNETID";
    const VERSION: u8 = abi::VERSION;
    const COMMANDS: &'static [Command] = &[
        command(GET, false, true),
        command(ADD, true, false),
        command(DEL, true, false),
        command(FLUSH, true, false),
    ];
    const STRICT_FROM: u8 = FLUSH + 1;
    const STRICT: bool = false;

    fn execute(request: &Request<'_>, answer: &mut Answer) -> Result {
        let net = request.net();
        let id = || {
            let name = request.attribute(abi::NAME).ok_or(EINVAL)?;
            PnetId::parse(abi::text(name)).ok_or(EINVAL)
        };
        match request.command() {
            GET => {
                let id = id()?;
                table::with(net, |table| {
                    let mut wanted = table.after(0).filter(|entry| entry.id == id);
                    wanted.try_for_each(|entry| answer.put(&describe(entry)?))
                })??;
                answer.done()
            }
            ADD => add(request, id()?),
            DEL => {
                let id = id()?;
                let found = table::with(net, |table| table.remove(|entry| entry.id == id))?;
                found.then_some(()).ok_or(ENOENT)
            }
            _ => table::with(net, |table| table.remove(|_| true)).map(drop),
        }
    }

    fn dump(part: &mut Part<'_>) -> Result {
        loop {
            let [after, ..] = part.position();
            let next = table::with(part.net(), |table| table.after(after).next().copied())?;
            let Some(entry) = next else {
                return Ok(());
            };
            part.put(&describe(&entry)?)?;
            part.set_position([entry.number, 0, 0]);
        }
    }
}

/// As in C it is enough that one of what a request names is new.
fn add(request: &Request<'_>, id: PnetId) -> Result {
    let [eth, ib, port] =
        [abi::ETHNAME, abi::IBNAME, abi::IBPORT].map(|number| request.attribute(number));
    let attachments = abi::attachments(eth, ib, port).map_err(|abi::Impossible| EINVAL)?;
    let mut new = false;
    for at in attachments.into_iter().flatten() {
        new |= table::with(request.net(), |table| table.add(id, at))??;
    }
    // A port may be good for another link now.
    if let Some(registry) = registry::get().filter(|_| new) {
        registry.for_each_group(|_| true, LinkGroup::want_link);
    }
    new.then_some(()).ok_or(EEXIST)
}

fn describe(entry: &Entry) -> Result<KVec<u8>> {
    let mut room = [0; abi::LARGEST];
    let message = abi::entry(&mut room, &entry.id, &entry.at).ok_or(EMSGSIZE)?;
    let mut kept = KVec::new();
    kept.extend_from_slice(message, GFP_KERNEL)?;
    Ok(kept)
}

/// Answers `SMC_PNETID`, until the result is dropped.
///
/// `None`, with a line in the log, if it cannot be: everything else works all the same.
pub(crate) fn register() -> Option<Registration<SmcPnetId>> {
    Registration::new()
        .inspect_err(|err| pr_warn!("no generic netlink family SMC_PNETID: {err:?}\n"))
        .ok()
}
