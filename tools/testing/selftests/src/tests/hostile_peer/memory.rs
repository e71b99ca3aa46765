//! A peer that makes one connection after the other in a link group, resets their TCP without a goodbye, and takes its time to let go of
//! our memory.

use super::{Meeting, Stage};
use crate::runner::Ctx;
use crate::tests::hostile_peer::speaker::{llc, Again, Offer, Peer, Role};
use crate::{check, check_eq, Context, Outcome};
use std::time::{Duration, Instant};

/// RMBs in a link group (RFC 7609, section 2.2).
const MOST: usize = 255;
/// Reason of a Decline: no memory.
const NO_MEMORY: u32 = 0x0101_0000;
/// Late, but before it is asked again.
const LATE: Duration = Duration::from_millis(1_000);

/// It answers what it is asked about our RMBs.
#[derive(Default)]
struct Answers {
    /// What it does not answer yet, and since when.
    put_off: Option<(Instant, Vec<u8>)>,
    deleted: usize,
}

impl Answers {
    /// Listens for a while, and answers: DELETE RKEY not before [`LATE`].
    fn give(&mut self, peer: &mut Peer) -> Outcome {
        peer.hear(Duration::from_millis(20))?;
        while peer.hear(Duration::ZERO)?.is_some() {}
        for request in std::mem::take(&mut peer.requests) {
            match request[0] {
                _ if request[3] & llc::ANSWER != 0 => {}
                llc::CONFIRM_RKEY => peer.agree(request)?,
                llc::DELETE_RKEY => self.put_off = Some((Instant::now(), request)),
                _ => {}
            }
        }
        if let Some((_, request)) = self.put_off.take_if(|(since, _)| since.elapsed() >= LATE) {
            self.deleted += 1;
            peer.agree(request)?;
        }
        Ok(())
    }
}

/// It gets no more of our memory than a group may have: then it is declined, or loses its link for letting as many requests wait.
pub fn limited(ctx: &Ctx) -> Outcome {
    let stage = Stage::without_others(ctx)?;
    let Meeting { mut peer, sock, .. } = stage.meet(Role::Client, Offer::PLAIN)?;
    drop(sock);
    let mut answers = Answers::default();
    let mut made = 1;
    loop {
        // The connection before is reset by that.
        match peer.try_again(stage.address)? {
            Again::Made => {}
            Again::Declined(why) => {
                check_eq!(why, NO_MEMORY, "reason of the Decline");
                break;
            }
            Again::FirstContact => break,
        }
        // One whose link group ends meanwhile does not come.
        if stage.listener.poll(libc::POLLIN, Duration::from_secs(1))? != 0 {
            drop(stage.listener.accept_from(0));
        }
        made += 1;
        check!(made < 3 * MOST, "{made} connections, and no end");
        answers.give(&mut peer)?;
    }
    // Those that it has let go of were used again.
    let most = MOST + answers.deleted;
    check!(
        (MOST..=most).contains(&made),
        "{made} connections, {} RMBs given back",
        answers.deleted
    );
    drop(peer);
    let mut meeting = stage.meet(Role::Client, Offer::PLAIN)?;
    meeting.echo(b"in another group").during("afterwards")
}
