// SPDX-License-Identifier: GPL-2.0

//! Families of generic netlink: commands of user space, and dumps.
//!
//! # What C guarantees
//!
//! Commands run in process context. Those of a family that does not ask for more run one at a time,
//! also beside its dumps. A request was checked against the policy of its command; its attributes stay
//! for the length of the call. `genl_unregister_family()` returns when no command runs and none will;
//! a dump that was begun pins the module.

use super::{
    netlink::Dump,
    netns::Net,
    version, //
};
use crate::bindings;
use crate::kapi::prelude::*;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::{
        to_result,
        Result, //
    },
    ffi::{
        c_int,
        c_long, //
    },
    str::CStr,
    types::Opaque,
};

/// What an attribute of a request must be.
#[derive(Clone, Copy)]
pub(crate) enum Attribute {
    /// It must not be there.
    Reject,
    /// A text of at most so many bytes; a zero at its end does not count.
    Text(u16),
    /// A text of at most so many bytes that ends with a zero, which does not count.
    TerminatedText(u16),
    /// One byte.
    Byte,
}

/// A command.
pub(crate) struct Command {
    /// Its number.
    pub(crate) number: u8,
    /// The asker must have `CAP_NET_ADMIN` in the first user namespace.
    pub(crate) admin: bool,
    /// It can be executed ([`Family::execute`]).
    pub(crate) executes: bool,
    /// It can be asked as a dump ([`Family::dump`]).
    pub(crate) dumps: bool,
    /// Attributes of its requests, from number 1 on.
    pub(crate) attributes: &'static [Attribute],
}

/// A family.
pub(crate) trait Family: Sized + 'static {
    /// Its name, at most 15 bytes.
    const NAME: &'static CStr;
    /// Its version.
    const VERSION: u8;
    /// Its commands.
    const COMMANDS: &'static [Command];
    /// Commands below this take attributes that they do not know, as C always has for them.
    const STRICT_FROM: u8;
    /// Whether requests are checked as strictly as those of new families.
    const STRICT: bool;

    /// Executes a command. Process context.
    fn execute(request: &Request<'_>, answer: &mut Answer) -> Result;

    /// Adds messages to one part of a dump, from [`Part::position`] on, until there are no more.
    /// Process context.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` of [`Part::put`]: the dump goes on at the position that was set last.
    fn dump(part: &mut Part<'_>) -> Result;
}

/// A command with its attributes.
///
/// # Invariants
///
/// `info` is that of a command that runs for all of `'a`, and `attributes` the number of entries of its
/// table.
pub(crate) struct Request<'a> {
    info: NonNull<bindings::genl_info>,
    attributes: usize,
    _call: PhantomData<&'a ()>,
}

impl Request<'_> {
    /// The command.
    pub(crate) fn command(&self) -> u8 {
        // SAFETY: By the type invariants.
        unsafe { (*(*self.info.as_ptr()).genlhdr).cmd }
    }

    /// The asker's network namespace.
    pub(crate) fn net(&self) -> &Net {
        // SAFETY: By the type invariants; the asker's socket keeps its namespace.
        unsafe { Net::from_raw(bindings::genl_info_net(self.info.as_ptr())) }
    }

    /// An attribute.
    pub(crate) fn attribute(&self, number: u16) -> Option<&[u8]> {
        let number = usize::from(number);
        if number > self.attributes {
            return None;
        }
        // SAFETY: By the type invariants the table has an entry for every number up to the largest
        // one; an entry is null, or points to an attribute whose length C has checked.
        unsafe {
            let attribute = *(*self.info.as_ptr()).attrs.add(number);
            if attribute.is_null() {
                return None;
            }
            let len =
                usize::from((*attribute).nla_len).saturating_sub(size_of::<bindings::nlattr>());
            Some(core::slice::from_raw_parts(attribute.add(1).cast(), len))
        }
    }
}

/// Messages that answer a command, beside its acknowledgement.
pub(crate) struct Answer {
    bytes: KVec<u8>,
    family: u16,
    sequence: u32,
    port: u32,
}

/// `NLMSG_DONE`.
const DONE: u16 = 3;

impl Answer {
    /// Adds one of many messages: a body with its `genlmsghdr`.
    pub(crate) fn put(&mut self, body: &[u8]) -> Result {
        self.add(self.family, body)
    }

    /// There are no more.
    pub(crate) fn done(&mut self) -> Result {
        self.add(DONE, &[])
    }

    fn add(&mut self, kind: u16, body: &[u8]) -> Result {
        let bytes = &mut self.bytes;
        let len = size_of::<bindings::nlmsghdr>() + body.len();
        let flags = bindings::NLM_F_MULTI as u16;
        bytes.extend_from_slice(&u32::try_from(len)?.to_ne_bytes(), GFP_KERNEL)?;
        bytes.extend_from_slice(&kind.to_ne_bytes(), GFP_KERNEL)?;
        bytes.extend_from_slice(&flags.to_ne_bytes(), GFP_KERNEL)?;
        bytes.extend_from_slice(&self.sequence.to_ne_bytes(), GFP_KERNEL)?;
        bytes.extend_from_slice(&self.port.to_ne_bytes(), GFP_KERNEL)?;
        bytes.extend_from_slice(body, GFP_KERNEL)?;
        while bytes.len() % 4 != 0 {
            bytes.push(0, GFP_KERNEL)?;
        }
        Ok(())
    }
}

/// One part of a dump.
pub(crate) struct Part<'a> {
    dump: Dump<'a>,
    net: &'a Net,
    command: u8,
    family: u16,
    position: [u64; 3],
}

impl Part<'_> {
    /// The command.
    pub(crate) fn command(&self) -> u8 {
        self.command
    }

    /// The asker's network namespace.
    pub(crate) fn net(&self) -> &Net {
        self.net
    }

    /// Where the last part has ended: zeroes when the dump begins.
    pub(crate) fn position(&self) -> [u64; 3] {
        self.position
    }

    /// Notes what was put so far.
    pub(crate) fn set_position(&mut self, position: [u64; 3]) {
        self.position = position;
    }

    /// Adds a message: a body with its `genlmsghdr`.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if it does not fit into this part.
    pub(crate) fn put(&mut self, body: &[u8]) -> Result {
        self.dump.message(self.family, body)?.finish();
        Ok(())
    }
}

/// Makes `F` known to generic netlink, until it is dropped.
///
/// # Invariants
///
/// `family` is registered; it points to the others, which stay as they are.
pub(crate) struct Registration<F> {
    family: KBox<Opaque<bindings::genl_family>>,
    _ops: KVec<bindings::genl_ops>,
    _policies: KVec<KVec<bindings::nla_policy>>,
    _family: PhantomData<fn(F)>,
}

// SAFETY: Registration and its end are not bound to a thread.
unsafe impl<F> Send for Registration<F> {}
// SAFETY: A shared `Registration` offers nothing.
unsafe impl<F> Sync for Registration<F> {}

fn policy(attribute: Attribute) -> bindings::nla_policy {
    let (type_, len) = match attribute {
        Attribute::Reject => (bindings::NLA_REJECT, 0),
        Attribute::Text(len) => (bindings::NLA_STRING, len),
        Attribute::TerminatedText(len) => (bindings::NLA_NUL_STRING, len),
        Attribute::Byte => (bindings::NLA_U8, 0),
    };
    bindings::nla_policy {
        type_: type_ as u8,
        len,
        ..Default::default()
    }
}

impl<F: Family> Registration<F> {
    /// Registers. Process context.
    ///
    /// # Errors
    ///
    /// `EEXIST` if somebody else has the name; `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        let mut policies = KVec::with_capacity(F::COMMANDS.len(), GFP_KERNEL)?;
        let mut ops = KVec::with_capacity(F::COMMANDS.len(), GFP_KERNEL)?;
        let mut most = 1;
        for command in F::COMMANDS {
            let mut of_command = KVec::with_capacity(command.attributes.len() + 1, GFP_KERNEL)?;
            // Number 0 is no attribute.
            of_command.push(bindings::nla_policy::default(), GFP_KERNEL)?;
            for attribute in command.attributes {
                of_command.push(policy(*attribute), GFP_KERNEL)?;
            }
            most = most.max(command.attributes.len());
            let validate = bindings::genl_validate_flags_GENL_DONT_VALIDATE_STRICT
                | bindings::genl_validate_flags_GENL_DONT_VALIDATE_DUMP;
            ops.push(
                bindings::genl_ops {
                    doit: command.executes.then_some(execute::<F>),
                    dumpit: command.dumps.then_some(go_on::<F>),
                    policy: of_command.as_ptr(),
                    maxattr: command.attributes.len() as u32,
                    cmd: command.number,
                    flags: if command.admin {
                        bindings::GENL_ADMIN_PERM as u8
                    } else {
                        0
                    },
                    validate: if F::STRICT { 0 } else { validate as u8 },
                    ..Default::default()
                },
                GFP_KERNEL,
            )?;
            policies.push(of_command, GFP_KERNEL)?;
        }
        let mut family = bindings::genl_family {
            version: F::VERSION.into(),
            // Of the largest table of attributes.
            maxattr: most as u32,
            n_ops: ops.len() as u8,
            resv_start_op: F::STRICT_FROM,
            ops: ops.as_ptr(),
            module: version::this_module(),
            ..Default::default()
        };
        family.set_netnsok(1);
        let name = F::NAME.to_bytes_with_nul();
        for (to, from) in family.name.iter_mut().zip(name) {
            *to = *from as _;
        }
        let family = KBox::new(Opaque::new(family), GFP_KERNEL)?;
        // SAFETY: All of it is on the heap, where it stays until it was unregistered.
        to_result(unsafe { bindings::genl_register_family(family.get()) })?;
        // INVARIANT: Registered just now.
        Ok(Self {
            family,
            _ops: ops,
            _policies: policies,
            _family: PhantomData,
        })
    }
}

impl<F> Drop for Registration<F> {
    fn drop(&mut self) {
        // SAFETY: Registered, by the type invariants. It fails only for what is not registered.
        unsafe { bindings::genl_unregister_family(self.family.get()) };
    }
}

/// `genl_ops::doit`.
///
/// # Safety
///
/// Called by C only.
unsafe extern "C" fn execute<F: Family>(
    _skb: *mut bindings::sk_buff,
    info: *mut bindings::genl_info,
) -> c_int {
    let Some(info) = NonNull::new(info) else {
        return EINVAL.to_errno();
    };
    // SAFETY: C passes what it knows of a command, which stays for the length of this call. Its family
    // is registered.
    let command = unsafe { (*(*info.as_ptr()).genlhdr).cmd };
    let attributes = F::COMMANDS
        .iter()
        .find(|known| known.number == command)
        .map_or(0, |known| known.attributes.len());
    // SAFETY: As above.
    let has_table = unsafe { !(*info.as_ptr()).attrs.is_null() };
    // INVARIANT: C has made a table for the attributes of the command's policy, if it has any.
    let request = Request {
        info,
        attributes: if has_table { attributes } else { 0 },
        _call: PhantomData,
    };
    // SAFETY: As above.
    let mut answer = unsafe {
        let info = info.as_ref();
        Answer {
            bytes: KVec::new(),
            family: (*info.nlhdr).nlmsg_type,
            sequence: info.snd_seq,
            port: info.snd_portid,
        }
    };
    let result = F::execute(&request, &mut answer).and_then(|()| match answer.bytes.len() {
        0 => Ok(()),
        // SAFETY: The command is being executed; the answer is as long as it says.
        len => to_result(unsafe {
            bindings::genl_answer(info.as_ptr(), answer.bytes.as_ptr().cast(), len)
        }),
    });
    result.map_or_else(|err| err.to_errno(), |()| 0)
}

/// `genl_ops::dumpit`: fills one part. Returns its length; 0 ends the dump.
///
/// # Safety
///
/// Called by C only.
unsafe extern "C" fn go_on<F: Family>(
    skb: *mut bindings::sk_buff,
    cb: *mut bindings::netlink_callback,
) -> c_int {
    let (Some(skb), Some(cb)) = (NonNull::new(skb), NonNull::new(cb)) else {
        return 0;
    };
    // SAFETY: C passes the buffer of this part, which the asker's socket owns: that keeps its
    // namespace.
    let net = unsafe { Net::from_raw(bindings::sock_net((*skb.as_ptr()).sk)) };
    // SAFETY: The request stays as long as the dump; C has checked that it has both headers.
    let (family, command) = unsafe {
        let nlh = (*cb.as_ptr()).nlh;
        let genl = nlh.add(1).cast::<bindings::genlmsghdr>();
        ((*nlh).nlmsg_type, (*genl).cmd)
    };
    // SAFETY: The words of the callback are ours.
    let args = unsafe { (*cb.as_ptr()).__bindgen_anon_1.args };
    let mut part = Part {
        // SAFETY: These are the arguments of this callback.
        dump: unsafe { Dump::from_raw(skb, cb) },
        net,
        command,
        family,
        position: [args[0] as u64, args[1] as u64, args[2] as u64],
    };
    let result = F::dump(&mut part);
    let position = part.position;
    // SAFETY: As above.
    unsafe {
        let args = &mut (*cb.as_ptr()).__bindgen_anon_1.args;
        for (to, from) in args.iter_mut().zip(position) {
            *to = from as c_long;
        }
    }
    // SAFETY: The buffer is ours.
    match unsafe { (*skb.as_ptr()).len } {
        0 => result.map_or_else(|err| err.to_errno(), |()| 0),
        len => len as c_int,
    }
}
