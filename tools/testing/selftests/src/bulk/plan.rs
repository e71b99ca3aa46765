//! What the two ends of one connection do: made from a number, told in words.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fmt;

/// How an end writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Write,
    /// send(2), at times with MSG_MORE or MSG_DONTWAIT.
    Send,
    Writev,
    /// Out of the pages of a mapped file, which fault.
    Mapped,
    Sendfile,
    /// From a file through a pipe, at times with SPLICE_F_MORE.
    Splice,
}

/// How an end reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    Read,
    /// recv(2), at times with MSG_DONTWAIT.
    Recv,
    Readv,
    /// Into pages that fault.
    Mapped,
    /// Each part is looked at before it is taken.
    Peek,
    /// MSG_WAITALL: less than asked for only at the end.
    WaitAll,
    /// Parts are thrown away by MSG_TRUNC, others are read.
    Trunc,
    /// Through a pipe.
    Splice,
}

/// How an end waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// One thread for each direction, which sleeps in its call.
    Block,
    /// One thread, a non-blocking socket and poll(2).
    Poll,
    /// As Poll, with edge-triggered epoll.
    Edge,
}

pub const OUTPUTS: [Output; 6] = [
    Output::Write,
    Output::Send,
    Output::Writev,
    Output::Mapped,
    Output::Sendfile,
    Output::Splice,
];
pub const INPUTS: [Input; 8] = [
    Input::Read,
    Input::Recv,
    Input::Readv,
    Input::Mapped,
    Input::Peek,
    Input::WaitAll,
    Input::Trunc,
    Input::Splice,
];
pub const WAITS: [Wait; 3] = [Wait::Block, Wait::Poll, Wait::Edge];

/// Plans that have every combination once.
pub const PLANS: u64 = (OUTPUTS.len() * INPUTS.len() * WAITS.len() * WAITS.len()) as u64;

/// What becomes of an end's sending side once it has written everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// shutdown(SHUT_WR) at once.
    Shutdown,
    /// shutdown(SHUT_WR) after the end of the peer's stream.
    ShutdownLast,
    /// close after the end of the peer's stream.
    CloseLast,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything is read to its end.
    Orderly,
    /// One end closes while there is something for it to read: a reset.
    Unread,
    /// One end closes with SO_LINGER 0: a reset.
    Linger,
}

/// One end.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    pub output: Output,
    pub input: Input,
    pub wait: Wait,
    /// Bytes it writes.
    pub total: usize,
    pub finish: Finish,
    /// SO_SNDBUF and SO_RCVBUF; 0 leaves them.
    pub send_buffer: i32,
    pub receive_buffer: i32,
    /// Pauses of some milliseconds: one in so many calls; 0 for none.
    pub pauses: u32,
    /// The largest size of a call.
    pub largest: usize,
    /// Closes after so many bytes of the peer's, by [`Plan::ending`]; the other end reads on.
    pub stops: Option<usize>,
}

/// A whole connection. The client is on host A.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub number: u64,
    pub client: Side,
    pub server: Side,
    pub ending: Ending,
}

impl Plan {
    /// Plans with numbers below [`PLANS`] have every way to write against every way to read, with every
    /// way to wait at both ends; what the other direction does, and the rest, is by chance.
    pub fn new(seed: u64, number: u64, largest_total: usize) -> Plan {
        let mut random = SmallRng::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let pairs = (OUTPUTS.len() * INPUTS.len()) as u64;
        let pick = |base: usize, value: u64| (value % base as u64) as usize;
        let (mut one, mut two) = (
            Side::by_chance(&mut random, largest_total),
            Side::by_chance(&mut random, largest_total),
        );
        one.output = OUTPUTS[pick(OUTPUTS.len(), number)];
        two.input = INPUTS[pick(INPUTS.len(), number / OUTPUTS.len() as u64)];
        // Also a few plans in a row have several ways to wait.
        let waits = number + number / pairs;
        one.wait = WAITS[pick(WAITS.len(), waits)];
        two.wait = WAITS[pick(WAITS.len(), waits / WAITS.len() as u64)];
        // At most one of them may wait for the other's end.
        if one.finish != Finish::Shutdown {
            two.finish = Finish::Shutdown;
        }
        if random.gen_ratio(1, 5) {
            two.total = 0;
        }
        let ending = match random.gen_range(0..8) {
            0 => Ending::Unread,
            1 => Ending::Linger,
            _ => Ending::Orderly,
        };
        if ending != Ending::Orderly {
            one.total += 1;
            two.stops = Some(random.gen_range(0..one.total));
        }
        let (client, server) = if random.gen() { (one, two) } else { (two, one) };
        Plan {
            seed,
            number,
            client,
            server,
            ending,
        }
    }
}

impl Side {
    fn by_chance(random: &mut SmallRng, largest_total: usize) -> Side {
        let largest = match random.gen_range(0..4) {
            0 => 300,
            1 => 5_000,
            _ => 65_000,
        };
        Side {
            output: OUTPUTS[random.gen_range(0..OUTPUTS.len())],
            input: INPUTS[random.gen_range(0..INPUTS.len())],
            wait: WAITS[random.gen_range(0..WAITS.len())],
            // A call costs as much as some thousand bytes.
            total: random.gen_range(0..largest_total.min(largest * 60)),
            finish: match random.gen_range(0..4) {
                0 => Finish::ShutdownLast,
                1 => Finish::CloseLast,
                _ => Finish::Shutdown,
            },
            send_buffer: buffer(random),
            receive_buffer: buffer(random),
            pauses: if random.gen_ratio(1, 3) { 20 } else { 0 },
            largest,
            stops: None,
        }
    }
}

fn buffer(random: &mut SmallRng) -> i32 {
    if random.gen() {
        0
    } else {
        1 << random.gen_range(11..18)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "plan {} of seed {}: {:?}; client {}; server {}",
            self.number, self.seed, self.ending, self.client, self.server
        )
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}, writes {} bytes by {:?}, then {:?}, reads by {:?}, at most {} bytes a call",
            self.wait, self.total, self.output, self.finish, self.input, self.largest
        )?;
        if let Some(bytes) = self.stops {
            write!(f, ", closes after {bytes} bytes")?;
        }
        for (name, value) in [
            ("SO_SNDBUF", self.send_buffer),
            ("SO_RCVBUF", self.receive_buffer),
        ] {
            if value > 0 {
                write!(f, ", {name} {value}")?;
            }
        }
        if self.pauses > 0 {
            write!(f, ", pauses")?;
        }
        Ok(())
    }
}
