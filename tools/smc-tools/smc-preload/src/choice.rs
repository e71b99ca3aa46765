// SPDX-License-Identifier: GPL-2.0

//! Which sockets become SMC sockets, and what happens where the kernel has none.

use crate::settings::Family;
use libc::{
    c_int, AF_INET, AF_INET6, EAFNOSUPPORT, EPROTONOSUPPORT, IPPROTO_IP, IPPROTO_TCP, SOCK_STREAM,
};

/// The address family, its protocols over IPv4 and IPv6, and the protocol of the IP families.
const AF_SMC: c_int = 43;
const SMCPROTO_SMC: c_int = 0;
const SMCPROTO_SMC6: c_int = 1;
const IPPROTO_SMC: c_int = 256;
/// The bits of a socket's type that are no flags (`SOCK_TYPE_MASK` of the kernel).
const TYPE_MASK: c_int = 0xf;

/// What `socket()` is called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) domain: c_int,
    pub(crate) kind: c_int,
    pub(crate) protocol: c_int,
}

/// What a call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Not a TCP socket: none of our business.
    Other(Result<c_int, c_int>),
    /// An SMC socket, or the error that a TCP socket would have met as well.
    Smc(Result<c_int, c_int>),
    /// A TCP socket, since the kernel has no SMC; and its errno for that.
    Tcp(Result<c_int, c_int>, c_int),
}

impl Call {
    /// Whether a TCP socket is wanted.
    fn is_tcp(self) -> bool {
        matches!(self.domain, AF_INET | AF_INET6)
            && self.kind & TYPE_MASK == SOCK_STREAM
            && matches!(self.protocol, IPPROTO_IP | IPPROTO_TCP)
    }

    fn with_smc_family(self) -> Self {
        Self {
            domain: AF_SMC,
            protocol: if self.domain == AF_INET6 {
                SMCPROTO_SMC6
            } else {
                SMCPROTO_SMC
            },
            ..self
        }
    }

    fn with_smc_protocol(self) -> Self {
        Self {
            protocol: IPPROTO_SMC,
            ..self
        }
    }
}

/// Makes the socket by `socket`, which gives a descriptor or an errno.
pub(crate) fn open(
    call: Call,
    family: Family,
    mut socket: impl FnMut(Call) -> Result<c_int, c_int>,
) -> Outcome {
    if !call.is_tcp() {
        return Outcome::Other(socket(call));
    }
    let (first, second) = match family {
        Family::Smc => (call.with_smc_family(), None),
        Family::Inet => (call.with_smc_protocol(), None),
        Family::Auto => (call.with_smc_protocol(), Some(call.with_smc_family())),
    };
    let mut result = socket(first);
    if let (Err(EAFNOSUPPORT | EPROTONOSUPPORT), Some(second)) = (result, second) {
        result = socket(second);
    }
    match result {
        Err(why @ (EAFNOSUPPORT | EPROTONOSUPPORT)) => Outcome::Tcp(socket(call), why),
        result => Outcome::Smc(result),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libc::{EMFILE, IPPROTO_UDP, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK};

    fn call(domain: c_int, kind: c_int, protocol: c_int) -> Call {
        Call {
            domain,
            kind,
            protocol,
        }
    }

    /// The calls that were made, and the outcome, where the kernel answers with `answers`.
    fn opened(
        call: Call,
        family: Family,
        answers: &[Result<c_int, c_int>],
    ) -> (Vec<Call>, Outcome) {
        let mut calls = Vec::new();
        let outcome = open(call, family, |call| {
            calls.push(call);
            answers[calls.len() - 1]
        });
        assert_eq!(calls.len(), answers.len());
        (calls, outcome)
    }

    #[test]
    fn tcp_sockets_become_smc_sockets_of_their_ip() {
        let flags = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
        for (asked, made) in [
            (call(AF_INET, SOCK_STREAM, 0), call(43, SOCK_STREAM, 0)),
            (call(AF_INET, flags, IPPROTO_TCP), call(43, flags, 0)),
            (call(AF_INET6, SOCK_STREAM, 0), call(43, SOCK_STREAM, 1)),
            (call(AF_INET6, flags, IPPROTO_TCP), call(43, flags, 1)),
        ] {
            let (calls, outcome) = opened(asked, Family::Smc, &[Ok(5)]);
            assert_eq!((calls, outcome), (vec![made], Outcome::Smc(Ok(5))));
            let (calls, _) = opened(asked, Family::Inet, &[Ok(5)]);
            let kept = call(asked.domain, asked.kind, 256);
            assert_eq!(calls, [kept]);
        }
    }

    #[test]
    fn all_others_pass_unchanged_with_their_results() {
        for asked in [
            call(AF_INET, SOCK_DGRAM, 0),
            call(AF_INET, SOCK_STREAM, IPPROTO_UDP),
            call(AF_INET, SOCK_STREAM, 262),
            call(AF_INET, SOCK_STREAM, 256),
            call(libc::AF_UNIX, SOCK_STREAM, 0),
            call(AF_SMC, SOCK_STREAM, 0),
            call(libc::AF_NETLINK, libc::SOCK_RAW, 0),
            call(AF_INET, libc::SOCK_SEQPACKET, 0),
            call(-1, -1, -1),
        ] {
            for answer in [Ok(3), Err(EAFNOSUPPORT)] {
                let (calls, outcome) = opened(asked, Family::Auto, &[answer]);
                assert_eq!((calls, outcome), (vec![asked], Outcome::Other(answer)));
            }
        }
    }

    #[test]
    fn without_smc_in_the_kernel_it_is_tcp() {
        let asked = call(AF_INET, SOCK_STREAM, 0);
        for why in [EAFNOSUPPORT, EPROTONOSUPPORT] {
            let (calls, outcome) = opened(asked, Family::Smc, &[Err(why), Ok(7)]);
            assert_eq!(calls[1], asked);
            assert_eq!(outcome, Outcome::Tcp(Ok(7), why));
            let (_, outcome) = opened(asked, Family::Smc, &[Err(why), Err(EMFILE)]);
            assert_eq!(outcome, Outcome::Tcp(Err(EMFILE), why));
        }
        // What TCP would meet, too, is not tried again.
        let (_, outcome) = opened(asked, Family::Smc, &[Err(EMFILE)]);
        assert_eq!(outcome, Outcome::Smc(Err(EMFILE)));
    }

    #[test]
    fn auto_tries_both_kinds() {
        let asked = call(AF_INET6, SOCK_STREAM, 0);
        let (inet, smc) = (call(AF_INET6, SOCK_STREAM, 256), call(43, SOCK_STREAM, 1));
        let no = Err(EPROTONOSUPPORT);
        let (calls, outcome) = opened(asked, Family::Auto, &[no, Ok(4)]);
        assert_eq!((calls, outcome), (vec![inet, smc], Outcome::Smc(Ok(4))));
        let (calls, outcome) = opened(asked, Family::Auto, &[no, Err(EAFNOSUPPORT), Ok(4)]);
        assert_eq!(calls, [inet, smc, asked]);
        assert_eq!(outcome, Outcome::Tcp(Ok(4), EAFNOSUPPORT));
    }
}
