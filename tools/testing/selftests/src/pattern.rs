//! Bytes that tell their place in the stream.

use crate::runner::Ctx;
use crate::sys::Sock;
use crate::{check, Fail, Outcome};
use rand::RngCore;

/// An endless stream of bytes that is the same on both sides: byte `n` is known without the ones
/// before it, so a receiver can tell at once what is lost, doubled or out of place.
pub struct Pattern {
    table: Vec<u8>,
}

impl Pattern {
    /// A prime, so that no ring or page size makes a displaced byte look right.
    pub const PERIOD: usize = 65_521;

    pub fn new(ctx: &Ctx, stream: u64) -> Pattern {
        Pattern::of(&mut ctx.random(stream))
    }

    pub fn of(random: &mut impl RngCore) -> Pattern {
        let mut table = vec![0; Pattern::PERIOD];
        random.fill_bytes(&mut table);
        // Twice over, so that every window up to the period is one slice.
        table.extend_from_within(..);
        Pattern { table }
    }

    /// At most [`Self::PERIOD`] bytes from an offset of the stream on.
    pub fn at(&self, offset: usize, length: usize) -> &[u8] {
        let start = offset % Pattern::PERIOD;
        &self.table[start..start + length.min(Pattern::PERIOD)]
    }

    /// Sends the stream from its start until there is no room any more, without waiting; the number of bytes.
    pub fn fill(&self, sock: &Sock) -> Outcome<usize> {
        sock.set_nonblocking(true)?;
        let mut sent = 0;
        loop {
            match sock.send(self.at(sent, 40_000), libc::MSG_NOSIGNAL) {
                Ok(count) => sent += count,
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => break,
                Err(error) => return Err(error.into()),
            }
            check!(sent < 1 << 30, "a gigabyte was taken and nobody reads");
        }
        sock.set_nonblocking(false)?;
        Ok(sent)
    }

    /// Two periods: every window up to the period lies in it, at [`Self::place`].
    pub fn table(&self) -> &[u8] {
        &self.table
    }

    /// Where an offset of the stream is in [`Self::table`].
    pub fn place(offset: usize) -> usize {
        offset % Pattern::PERIOD
    }

    pub fn verify(&self, offset: usize, data: &[u8]) -> Outcome {
        let mut done = 0;
        while done < data.len() {
            let expected = self.at(offset + done, data.len() - done);
            let got = &data[done..done + expected.len()];
            if got != expected {
                let wrong = got
                    .iter()
                    .zip(expected)
                    .position(|(a, b)| a != b)
                    .unwrap_or(0);
                return Err(Fail(format!(
                    "byte {} of the stream is wrong: {:#04x} instead of {:#04x}",
                    offset + done + wrong,
                    got[wrong],
                    expected[wrong]
                )));
            }
            done += expected.len();
        }
        Ok(())
    }
}
