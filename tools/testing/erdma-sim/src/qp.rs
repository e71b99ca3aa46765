//! Queue pairs: their queues, their states, and what a work request says.

use crate::memory::{GuestMemory, Outside};
use crate::ring::Buffer;
use crate::wire::{Fields, Op};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Connected,
    Datagram,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Reset,
    Init,
    Rtr,
    Rts,
    Sqd,
    Sqe,
    Error,
}

impl State {
    pub fn from_roce(number: u32) -> Option<State> {
        [
            State::Reset,
            State::Init,
            State::Rtr,
            State::Rts,
            State::Sqd,
            State::Sqe,
            State::Error,
        ]
        .get(number as usize)
        .copied()
    }

    /// iWARP's IDLE, RTR, RTS, CLOSING, TERMINATE and ERROR.
    pub fn from_iwarp(number: u32) -> Option<State> {
        [
            State::Init,
            State::Rtr,
            State::Rts,
            State::Error,
            State::Error,
            State::Error,
        ]
        .get(number as usize)
        .copied()
    }

    pub fn roce(self) -> u64 {
        self as u64
    }

    pub fn name(self) -> &'static str {
        match self {
            State::Reset => "RESET",
            State::Init => "INIT",
            State::Rtr => "RTR",
            State::Rts => "RTS",
            State::Sqd => "SQD",
            State::Sqe => "SQE",
            State::Error => "ERROR",
        }
    }

    /// What the specification of the verbs allows (InfiniBand 10.3.1); RESET and ERROR are always allowed.
    pub fn may_become(self, next: State) -> bool {
        use State::*;
        matches!(
            (self, next),
            (_, Reset | Error)
                | (Reset | Init, Init)
                | (Init, Rtr)
                | (Rtr | Rts | Sqd | Sqe, Rts)
                | (Rts | Sqd, Sqd)
        )
    }

    pub fn receives(self) -> bool {
        matches!(self, State::Rtr | State::Rts | State::Sqd | State::Sqe)
    }
}

/// One of a pair's two queues. Indexes have 16 bits.
#[derive(Clone, Debug)]
pub struct WorkQueue {
    pub buffer: Buffer,
    pub depth: u32,
    pub pi: u16,
    pub ci: u16,
    pub cqn: u32,
    /// Where the driver keeps its last doorbell, too; 0: nowhere.
    pub record: u64,
}

impl WorkQueue {
    pub fn pending(&self) -> u16 {
        self.pi.wrapping_sub(self.ci)
    }

    /// Whether the index is one that a driver can have.
    pub fn advance(&mut self, pi: u16) -> bool {
        let fits = u32::from(pi.wrapping_sub(self.ci)) <= self.depth;
        if fits {
            self.pi = pi;
        }
        fits
    }

    /// An old doorbell says what is known already: that is no error.
    pub fn is_old(&self, pi: u16) -> bool {
        self.pi.wrapping_sub(pi) <= self.pending()
    }

    /// Bytes from the consumer's place on, over the end of the ring.
    fn read(&self, memory: &GuestMemory, into: &mut [u8]) -> Result<(), Outside> {
        for (index, entry) in (u32::from(self.ci)..).zip(into.chunks_mut(32)) {
            self.buffer
                .read(memory, u64::from(index & (self.depth - 1)) * 32, entry)?;
        }
        Ok(())
    }
}

/// Why a send queue stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The other side has no receive posted.
    NotReady,
    /// The other side does not answer.
    Silent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    pub until: u64,
    pub why: Why,
    pub tries: u32,
}

/// The TCP connection that an iWARP pair takes over, as the driver writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    pub source: (u32, u16),
    pub target: (u32, u16),
}

impl Tuple {
    pub fn reversed(self) -> Tuple {
        Tuple {
            source: self.target,
            target: self.source,
        }
    }
}

pub struct Qp {
    pub kind: Kind,
    pub pd: u32,
    pub state: State,
    pub send: WorkQueue,
    pub recv: WorkQueue,
    pub target: Option<[u8; 16]>,
    pub target_qpn: u32,
    pub qkey: u32,
    pub send_psn: u32,
    pub recv_psn: u32,
    pub wait: Option<Wait>,
    /// Set while a timer is to run the send queue.
    pub scheduled: bool,
    pub cookie: u32,
    pub peer_cookie: u32,
    pub tuple: Option<Tuple>,
    /// The other end of an iWARP connection, once found: device and number.
    pub pair: Option<(usize, u32)>,
    pub sent: u64,
    pub received: u64,
}

impl Qp {
    pub fn new(
        kind: Kind,
        pd: u32,
        state: State,
        send: WorkQueue,
        recv: WorkQueue,
        cookie: u32,
    ) -> Qp {
        Qp {
            kind,
            pd,
            state,
            send,
            recv,
            target: None,
            target_qpn: 0,
            qkey: 0,
            send_psn: 0,
            recv_psn: 0,
            wait: None,
            scheduled: false,
            cookie,
            peer_cookie: 0,
            tuple: None,
            pair: None,
            sent: 0,
            received: 0,
        }
    }

    /// As it was made, but for what names it.
    pub fn reset(&mut self) {
        for queue in [&mut self.send, &mut self.recv] {
            (queue.pi, queue.ci) = (0, 0);
        }
        (
            self.target,
            self.target_qpn,
            self.wait,
            self.tuple,
            self.pair,
        ) = (None, 0, None, None, None);
        (self.send_psn, self.recv_psn) = (0, 0);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sge {
    pub address: u64,
    pub length: u32,
    pub key: u32,
}

fn sge(wqe: Fields<'_, 128>, at: usize) -> Sge {
    Sge {
        address: wqe.u64(at),
        length: wqe.u32(at + 8),
        key: wqe.u32(at + 12),
    }
}

/// Where the data of a work request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    Inline(Vec<u8>),
    Memory(Vec<Sge>),
}

/// What REG_MR registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    pub start: u64,
    pub length: u32,
    pub rights: u8,
    pub count: u64,
    /// Addresses that came with the request; else the region's own table has them.
    pub pages: Option<[u64; 4]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    pub qkey: u32,
    pub qpn: u32,
    pub handle: u32,
}

/// A work request of a send queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub op: Op,
    /// Its first entry, which names it in its completion.
    pub index: u16,
    /// The entry after it.
    pub next: u16,
    pub signalled: bool,
    pub solicited: bool,
    /// As the bytes are: immediate data.
    pub immediate: [u8; 4],
    /// A key to invalidate or to register.
    pub key: u32,
    pub length: u32,
    pub data: Data,
    pub remote: Sge,
    pub operands: (u64, u64),
    pub registration: Option<Registration>,
    pub datagram: Option<Datagram>,
}

/// A work request that makes no sense: what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    pub op: Op,
    pub index: u16,
    pub next: u16,
    pub why: &'static str,
}

const MOST_SGES: usize = 6;
const MOST_INLINE: usize = 96;

/// The first 8 bytes: operation, and how many entries it takes (1 to 8).
fn header(queue: &WorkQueue, memory: &GuestMemory) -> Result<(u64, u16), Outside> {
    let mut bytes = [0; 8];
    queue.buffer.read(
        memory,
        u64::from(u32::from(queue.ci) & (queue.depth - 1)) * 32,
        &mut bytes,
    )?;
    let header = u64::from_le_bytes(bytes);
    Ok((header, (header >> 52 & 7) as u16 + 1))
}

/// For flushing: the operation of the request at the consumer's place, and how many entries it takes.
pub fn peek(queue: &WorkQueue, memory: &GuestMemory) -> (Op, u16) {
    let (word, entries) = header(queue, memory).unwrap_or((0, 1));
    (
        Op::request((word >> 27 & 31) as u8).unwrap_or(Op::Send),
        entries.min(queue.pending().max(1)),
    )
}

pub fn read_request(
    queue: &WorkQueue,
    memory: &GuestMemory,
    qpn: u32,
    kind: Kind,
) -> Result<Request, Malformed> {
    let index = queue.ci;
    let bad = |op, entries: u16, why| Malformed {
        op,
        index,
        next: index.wrapping_add(entries.min(queue.pending().max(1))),
        why,
    };
    let (word, entries) =
        header(queue, memory).map_err(|_| bad(Op::Send, 1, "the send queue is not in memory"))?;
    let number = (word >> 27 & 31) as u8;
    let op = Op::request(number).ok_or(bad(Op::Send, entries, "unknown operation"))?;
    let bad = |why| bad(op, entries, why);
    if entries > 4 || entries > queue.pending() {
        return Err(bad("it is longer than what was posted"));
    }
    let next = index.wrapping_add(entries);
    if word as u16 != next {
        return Err(bad("its index is not its place"));
    }
    if (word >> 32 & 0xf_ffff) as u32 != qpn {
        return Err(bad("it names another queue pair"));
    }
    let size = usize::from(entries) * 32;
    let mut bytes = [0; 128];
    queue
        .read(memory, &mut bytes[..size])
        .map_err(|_| bad("the send queue is not in memory"))?;
    let wqe = Fields(&bytes);
    let flag = |bit: u32| word >> bit & 1 == 1;
    let listed = (word >> 56) as usize;
    let mut request = Request {
        op,
        index,
        next,
        signalled: flag(22),
        solicited: flag(23),
        immediate: wqe.bytes(8),
        key: 0,
        length: wqe.u32(12),
        data: Data::Memory(Vec::new()),
        remote: Sge {
            address: 0,
            length: 0,
            key: 0,
        },
        operands: (0, 0),
        registration: None,
        datagram: None,
    };
    if kind == Kind::Datagram && !matches!(op, Op::Send | Op::SendImm) {
        return Err(bad("a datagram can only be sent"));
    }
    // Data behind a header of so many bytes.
    let data_at = match op {
        Op::Send | Op::SendImm | Op::SendInvalidate if kind == Kind::Connected => {
            request.key = wqe.u32(8);
            Some(16)
        }
        Op::Send | Op::SendImm | Op::SendInvalidate => {
            request.datagram = Some(Datagram {
                qkey: wqe.u32(16),
                qpn: wqe.u32(20) & 0xf_ffff,
                handle: wqe.u32(24),
            });
            Some(32)
        }
        Op::Write | Op::WriteImm => {
            request.remote = Sge {
                address: wqe.u64(20),
                length: request.length,
                key: wqe.u32(16),
            };
            Some(32)
        }
        _ => None,
    };
    let needs = |bytes: usize| {
        if size < bytes {
            Err(bad("it is too short for its operation"))
        } else {
            Ok(())
        }
    };
    match op {
        _ if data_at.is_some() => {
            let at = data_at.unwrap_or(0);
            if flag(25) {
                needs(at + listed)?;
                if listed > MOST_INLINE || listed != request.length as usize {
                    return Err(bad("its inline data has another length"));
                }
                request.data = Data::Inline(bytes[at..at + listed].to_vec());
            } else {
                if listed > MOST_SGES {
                    return Err(bad("it has too many pieces"));
                }
                needs(at + listed * 16)?;
                let sges: Vec<Sge> = (0..listed).map(|n| sge(wqe, at + n * 16)).collect();
                if sges.iter().map(|s| u64::from(s.length)).sum::<u64>()
                    != u64::from(request.length)
                {
                    return Err(bad("its pieces have another length"));
                }
                request.data = Data::Memory(sges);
            }
        }
        Op::Read | Op::ReadInvalidate => {
            needs(48)?;
            request.key = wqe.u32(8);
            request.data = Data::Memory(vec![Sge {
                address: wqe.u64(20),
                length: request.length,
                key: wqe.u32(16),
            }]);
            // Of the other side: address, length, key.
            request.remote = Sge {
                length: request.length,
                ..sge(wqe, 32)
            };
        }
        Op::CompareSwap | Op::FetchAdd => {
            needs(64)?;
            request.operands = (wqe.u64(16), wqe.u64(24));
            request.length = 8;
            request.remote = Sge {
                length: 8,
                ..sge(wqe, 32)
            };
            let local = sge(wqe, 48);
            if local.length < 8 {
                return Err(bad("the result has no room"));
            }
            request.data = Data::Memory(vec![Sge { length: 8, ..local }]);
        }
        Op::Register => {
            needs(32)?;
            let count = u64::from(wqe.bits(24, 31, 12));
            let inline = wqe.bits(24, 7, 6) == 0;
            if inline && count > 4 {
                return Err(bad("more than four pages inline"));
            }
            if inline {
                needs(32 + count as usize * 8)?;
            }
            let pages = inline.then(|| {
                [0, 1, 2, 3].map(|n| {
                    if n < count as usize {
                        wqe.u64(32 + n * 8)
                    } else {
                        0
                    }
                })
            });
            request.key = wqe.u32(20);
            request.length = 0;
            request.registration = Some(Registration {
                start: wqe.u64(8),
                length: wqe.u32(16),
                rights: wqe.bits(24, 5, 1) as u8,
                count,
                pages,
            });
        }
        Op::LocalInvalidate => {
            needs(32)?;
            request.key = wqe.u32(20);
            request.length = 0;
        }
        _ => return Err(bad("unknown operation")),
    }
    Ok(request)
}

/// A receive: where its data goes.
pub fn read_receive(
    queue: &WorkQueue,
    memory: &GuestMemory,
    qpn: u32,
) -> Result<Sge, &'static str> {
    let mut bytes = [0; 32];
    queue
        .read(memory, &mut bytes)
        .map_err(|_| "the receive queue is not in memory")?;
    let rqe = Fields(&bytes);
    if rqe.u16(0) != queue.ci.wrapping_add(1) {
        return Err("its index is not its place");
    }
    if rqe.u32(4) & 0xf_ffff != qpn {
        return Err("it names another queue pair");
    }
    Ok(Sge {
        address: rqe.u64(16),
        length: rqe.u32(24),
        key: rqe.u32(28),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_follow_each_other() {
        use State::*;
        for (from, to, allowed) in [
            (Reset, Init, true),
            (Reset, Rtr, false),
            (Init, Rtr, true),
            (Init, Rts, false),
            (Rtr, Rts, true),
            (Rts, Sqd, true),
            (Rtr, Init, false),
            (Error, Rts, false),
            (Error, Reset, true),
            (Rts, Error, true),
        ] {
            assert_eq!(from.may_become(to), allowed, "{from:?} -> {to:?}");
        }
    }

    fn queue(depth: u32, ci: u16, pi: u16) -> WorkQueue {
        WorkQueue {
            buffer: Buffer::plain(0),
            depth,
            pi,
            ci,
            cqn: 1,
            record: 0,
        }
    }

    #[test]
    fn doorbells_have_16_bits() {
        let mut q = queue(64, 0xfffe, 0xfffe);
        assert!(q.advance(6));
        assert_eq!(q.pending(), 8);
        assert!(q.is_old(2) && !q.is_old(7));
        assert!(!q.advance(0xfffe_u16.wrapping_add(65)), "more than fits");
        assert_eq!(q.pi, 6);
    }

    fn write(memory: &GuestMemory, at: u64, words: &[u64]) {
        for (n, word) in words.iter().enumerate() {
            memory
                .write(at + n as u64 * 8, &word.to_le_bytes())
                .unwrap();
        }
    }

    #[test]
    fn a_request_goes_over_the_end_of_the_ring() {
        let mut memory = GuestMemory::default();
        memory.map_anonymous(0, 0x1000).unwrap();
        // A write with one piece: two entries, the last and the first of a ring of four.
        let header = 1u64 << 56 | 1 << 52 | 9 << 32 | 1 << 22 | 5;
        write(
            &memory,
            96,
            &[header, 0x40 << 32, 0x1234_5678_0000_0700, 0x9abc_def0],
        );
        write(&memory, 0, &[0xa000, 0x800 << 32 | 0x40]);
        let request = read_request(&queue(4, 3, 5), &memory, 9, Kind::Connected).unwrap();
        assert_eq!(
            (request.op, request.index, request.next, request.signalled),
            (Op::Write, 3, 5, true)
        );
        assert_eq!(
            request.remote,
            Sge {
                address: 0x9abc_def0_1234_5678,
                length: 0x40,
                key: 0x700
            }
        );
        assert_eq!(
            request.data,
            Data::Memory(vec![Sge {
                address: 0xa000,
                length: 0x40,
                key: 0x800
            }])
        );
        let other = read_request(&queue(4, 3, 5), &memory, 8, Kind::Connected).unwrap_err();
        assert_eq!(other.why, "it names another queue pair");
        let short = read_request(&queue(4, 3, 4), &memory, 9, Kind::Connected).unwrap_err();
        assert_eq!(
            (short.why, short.next),
            ("it is longer than what was posted", 4)
        );
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let mut memory = GuestMemory::default();
        memory.map_anonymous(0, 0x1000).unwrap();
        let one = |header: u64, second: u64| {
            write(&memory, 0, &[header | 9 << 32 | 1, second]);
            read_request(&queue(4, 0, 4), &memory, 9, Kind::Connected).map_err(|m| m.why)
        };
        assert_eq!(one(7 << 27, 0).unwrap_err(), "unknown operation");
        assert_eq!(
            one(1 << 27, 0).unwrap_err(),
            "it is too short for its operation"
        );
        assert_eq!(
            one(2 << 27 | 1 << 25 | 16 << 56, 15 << 32).unwrap_err(),
            "its inline data has another length"
        );
        assert_eq!(
            one(2 << 27 | 7 << 56, 0).unwrap_err(),
            "it has too many pieces"
        );
        assert_eq!(
            one(2 << 27, 1 << 32).unwrap_err(),
            "its pieces have another length"
        );
        assert!(one(2 << 27, 0).is_ok(), "a send of nothing");
        write(&memory, 0, &[9 << 32 | 1, 0]);
        let datagram = read_request(&queue(4, 0, 1), &memory, 9, Kind::Datagram);
        assert_eq!(datagram.unwrap_err().why, "a datagram can only be sent");
    }
}
