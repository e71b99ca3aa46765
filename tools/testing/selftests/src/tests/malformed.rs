//! Requests to the netlink interfaces that are wrong, cut off, or anything: an error each, and nothing in
//! the log.

use super::once;
use super::settings::Changed;
use crate::diag;
use crate::genl::{self, Client};
use crate::kind::Host;
use crate::runner::{Ctx, Test};
use crate::sys;
use crate::{check, check_eq, check_errno, Context, Outcome};
use rand::rngs::SmallRng;
use rand::Rng;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

pub const TESTS: [Test; 2] = [
    once("malformed.genl", 300, generic),
    once("malformed.sock_diag", 120, sock_diag),
];

/// The kernel's log from now on.
struct Log(std::fs::File);

impl Log {
    fn open() -> Outcome<Log> {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .during("/dev/kmsg")?;
        // SAFETY: no pointers; the descriptor is open.
        let end = unsafe { libc::lseek(std::os::fd::AsRawFd::as_raw_fd(&file), 0, libc::SEEK_END) };
        check!(
            end >= 0,
            "the end of /dev/kmsg: {}",
            std::io::Error::last_os_error()
        );
        Ok(Log(file))
    }

    /// What was said since, but for what the kernel's netlink itself says of wrong lengths, and how often it has not.
    fn lines(&mut self) -> Outcome<Vec<String>> {
        let mut lines = Vec::new();
        let mut buffer = vec![0; 8192];
        loop {
            match self.0.read(&mut buffer) {
                Ok(0) => return Ok(lines),
                Ok(got) => {
                    let line = String::from_utf8_lossy(&buffer[..got]).into_owned();
                    let text = line.split_once(';').map_or("", |(_, text)| text);
                    let of_netlink = ["netlink: ", "__nla_validate_parse: ", "validate_nla: "];
                    if !of_netlink.iter().any(|begin| text.starts_with(begin)) {
                        lines.push(text.trim_end().to_string());
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => return Ok(lines),
                // Overwritten before it was read.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A family: its name, its last command, those that are dumps, and how many attributes it knows.
pub(super) struct Family {
    pub(super) name: &'static str,
    last: u8,
    pub(super) dumps: &'static [u8],
    /// Refuses attributes that it does not know.
    strict: bool,
}

pub(super) const FAMILIES: [Family; 2] = [
    Family {
        name: genl::SMC_GEN,
        last: genl::DISABLE_HS_LIMITATION,
        dumps: &[1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16],
        strict: true,
    },
    Family {
        name: "SMC_PNETID",
        last: 4,
        dumps: &[1],
        strict: false,
    },
];

fn bytes(random: &mut SmallRng, len: usize) -> Vec<u8> {
    (0..len).map(|_| random.gen()).collect()
}

/// A message with whatever it says of its length.
pub(super) fn message(family: u16, flags: i32, length: usize, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend((length as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend((flags as u16).to_ne_bytes());
    message.extend([7, 0, 0, 0, 0, 0, 0, 0]);
    message.extend(body);
    message
}

/// A request that must be refused, and why.
fn wrong(random: &mut SmallRng, family: &Family, id: u16) -> (Vec<u8>, &'static str) {
    let dump = random.gen_bool(0.5);
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | if dump { libc::NLM_F_DUMP } else { 0 };
    let whole = |command: u8, attributes: &[u8]| {
        let body = [&[command, 1, 0, 0], attributes].concat();
        message(id, flags, 16 + body.len(), &body)
    };
    match random.gen_range(0..5) {
        0 => {
            let command = loop {
                let command = random.gen::<u8>();
                if command == 0 || command > family.last {
                    break command;
                }
            };
            (whole(command, &[]), "an unknown command")
        }
        1 => {
            // The header of generic netlink is cut off.
            let len = random.gen_range(0..4);
            let body = bytes(random, len);
            (message(id, flags, 16 + len, &body), "no whole header")
        }
        2 => {
            // Of commands that can be executed, or dumped, the other.
            let command = random.gen_range(1..=family.last);
            let can = if dump {
                family.dumps.contains(&command)
            } else {
                family.name != genl::SMC_GEN || !family.dumps.contains(&command)
            };
            if can {
                (whole(200, &[]), "an unknown command")
            } else {
                (whole(command, &[]), "not the kind of this command")
            }
        }
        3 if family.strict => {
            let command = random.gen_range(1..=family.last);
            let mut attribute = genl::attribute(random.gen_range(1..300), &bytes(random, 5));
            // Longer than there is.
            let length = random.gen_range(12..2000u16);
            attribute[..2].copy_from_slice(&length.to_ne_bytes());
            (whole(command, &attribute), "an attribute that is cut off")
        }
        3 => {
            let name = loop {
                let len = random.gen_range(0..40);
                let name = bytes(random, len);
                let text = name.split(|&byte| byte == 0).next().unwrap_or(&[]);
                let text = text.trim_ascii_end();
                let good = !text.is_empty() && text.iter().all(u8::is_ascii_alphanumeric);
                if !good {
                    break name;
                }
            };
            let body = [
                &[random.gen_range(1..4), 1, 0, 0][..],
                &genl::attribute(1, &name),
            ]
            .concat();
            let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
            (
                message(id, flags, 16 + body.len(), &body),
                "a name that cannot be",
            )
        }
        _ if family.strict => {
            let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
            let len = loop {
                let len = random.gen_range(0..80);
                if len != 33 {
                    break len;
                }
            };
            let command = *[genl::ADD_UEID, genl::REMOVE_UEID]
                .get(usize::from(random.gen::<bool>()))
                .unwrap_or(&genl::ADD_UEID);
            let attribute = genl::attribute(1, &bytes(random, len));
            let body = [&[command, 1, 0, 0][..], &attribute].concat();
            (
                message(id, flags, 16 + body.len(), &body),
                "an ID of the wrong size",
            )
        }
        _ => {
            let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
            let port = [0, 3, 100, 255][random.gen_range(0..4)];
            let body = [
                &[2, 1, 0, 0][..],
                &genl::text(1, "NET"),
                &genl::text(3, "dev"),
                &genl::attribute(4, &[port]),
            ]
            .concat();
            (
                message(id, flags, 16 + body.len(), &body),
                "a port that cannot be",
            )
        }
    }
}

/// Any request, with an end that is right: it may be refused or not.
pub(super) fn anything(random: &mut SmallRng, family: &Family, id: u16) -> Vec<u8> {
    let dump = random.gen_bool(0.5);
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | if dump { libc::NLM_F_DUMP } else { 0 };
    let mut body = vec![random.gen_range(0..=family.last.saturating_add(1)), 1, 0, 0];
    for _ in 0..random.gen_range(0..4) {
        let len = random.gen_range(0..70);
        body.extend(genl::attribute(random.gen_range(0..6), &bytes(random, len)));
    }
    if random.gen_bool(0.3) {
        let at = random.gen_range(4..=body.len());
        body.truncate(at);
    }
    message(id, flags, 16 + body.len(), &body)
}

fn generic(ctx: &Ctx) -> Outcome {
    let count = (4000 / ctx.divisor).max(500);
    let _limit = Changed::new(&[Host::A], "limit_smc_hs", 0)?;
    let _ids = super::genl::Ids::of(Host::A)?;
    let mut log = Log::open()?;
    let mut random = ctx.random(4711);
    for family in &FAMILIES {
        sys::enter(Host::A)?;
        let mut client = Client::new(family.name)?;
        for number in 0..count {
            let (request, why) = wrong(&mut random, family, client.family());
            client.send_raw(&request)?;
            let answer = client.rest();
            check!(
                answer
                    .as_ref()
                    .is_err_and(|error| error.raw_os_error().is_some()),
                "request {number} of {}, {why}: {answer:?} for {request:02x?}",
                family.name
            );
        }
        let mut taken = 0;
        for _ in 0..count {
            let request = anything(&mut random, family, client.family());
            client.send_raw(&request)?;
            taken += usize::from(client.rest().is_ok());
            // The acknowledgement of an answer that has an end of its own.
            client = Client::new(family.name)?;
        }
        println!(
            "# malformed.genl: {}: {count} refused; of {count} others {taken} taken",
            family.name
        );
    }
    sys::enter(Host::A)?;
    Client::new("SMC_PNETID")?.execute(4, &[])?;
    check_eq!(log.lines()?, [""; 0], "lines in the log");
    Ok(())
}

fn sock_diag(ctx: &Ctx) -> Outcome {
    let count = (2000 / ctx.divisor).max(300);
    let mut log = Log::open()?;
    let mut random = ctx.random(4712);
    sys::enter(Host::A)?;
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    for _ in 0..count {
        // The family, and no more of the four bytes that matter.
        let len = random.gen_range(2..4);
        let mut body = bytes(&mut random, len);
        body[0] = crate::kind::AF_SMC as u8;
        let request = message(20, flags, 16 + len, &body);
        check_errno!(
            diag::Dump::ask(&request)?.part(),
            libc::EINVAL,
            "a request of {len} bytes"
        );
        // Anything in a whole one.
        let len = random.gen_range(4..120);
        let mut body = bytes(&mut random, len);
        body[0] = crate::kind::AF_SMC as u8;
        diag::Dump::ask(&message(20, flags, 16 + len, &body))?
            .rest()
            .during("a request with anything in it")?;
    }
    check_eq!(log.lines()?, [""; 0], "lines in the log");
    Ok(())
}
