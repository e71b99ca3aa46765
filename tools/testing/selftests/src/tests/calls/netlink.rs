//! Requests to sock_diag of AF_SMC and to the module's families of generic netlink.

use super::super::malformed::{self, FAMILIES};
use crate::genl::Client;
use crate::kind::{Host, AF_SMC};
use crate::{sys, Context, Outcome};
use rand::rngs::SmallRng;
use rand::Rng;

const NETLINK_SOCK_DIAG: i32 = 4;
const NETLINK_GENERIC: i32 = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// The numbers of [`FAMILIES`].
#[derive(Clone)]
pub struct Families([u16; FAMILIES.len()]);

pub struct Request {
    pub protocol: i32,
    pub message: Vec<u8>,
    /// It may change settings.
    pub changes: bool,
}

impl Families {
    pub fn find() -> Outcome<Families> {
        sys::enter(Host::A)?;
        let mut ids = [0; FAMILIES.len()];
        for (id, family) in ids.iter_mut().zip(&FAMILIES) {
            *id = Client::new(family.name).during(family.name)?.family();
        }
        Ok(Families(ids))
    }

    pub fn request(&self, random: &mut SmallRng) -> Request {
        let number = random.gen_range(0..FAMILIES.len());
        let (family, id) = (&FAMILIES[number], self.0[number]);
        let dump = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        match random.gen_range(0..10) {
            // Whole, for all that it knows; of another length, and with anything in it.
            kind @ 0..4 => {
                let mut body = match kind {
                    0..2 => vec![0; 52],
                    2 => vec![random.gen(); 52],
                    _ => vec![random.gen(); random.gen_range(0..120)],
                };
                if let Some(first) = body.first_mut() {
                    *first = AF_SMC as u8;
                }
                if let Some(extensions) = body.get_mut(3) {
                    *extensions = random.gen();
                }
                Request {
                    protocol: NETLINK_SOCK_DIAG,
                    message: malformed::message(SOCK_DIAG_BY_FAMILY, dump, 16 + body.len(), &body),
                    changes: false,
                }
            }
            4..7 => {
                let command = family.dumps[random.gen_range(0..family.dumps.len())];
                Request {
                    protocol: NETLINK_GENERIC,
                    message: malformed::message(id, dump, 20, &[command, 1, 0, 0]),
                    changes: false,
                }
            }
            kind => {
                let mut message = malformed::anything(random, family, id);
                if kind == 9 {
                    // Of another length than it says.
                    let at = random.gen_range(0..message.len());
                    message[at] = random.gen();
                    message.resize(random.gen_range(0..200), random.gen());
                }
                Request {
                    protocol: NETLINK_GENERIC,
                    message,
                    changes: true,
                }
            }
        }
    }
}
