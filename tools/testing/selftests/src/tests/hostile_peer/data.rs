//! CDC messages, immediates and lengths that are wrong (RFC 7609, appendix A.4; Documentation/immediates.rst).

use super::speaker::{producer, state, Cdc, Cursor, CDC, LEN};
use super::{says, Ends, Meeting, Statement, VIOLATION};
use crate::{check, check_eq, Outcome};
use std::time::Duration;

/// Sends what would follow, changed.
fn wrong(meeting: &mut Meeting<'_>, change: impl FnOnce(&mut Cdc, u32)) -> Outcome {
    let mut cdc = meeting.peer.next();
    change(&mut cdc, meeting.peer.far.ring as u32);
    meeting.peer.qp.send(&cdc.bytes())
}

/// As [`wrong`], and the peer goes on from there.
fn odd(meeting: &mut Meeting<'_>, change: impl FnOnce(&mut Cdc)) -> Outcome {
    let mut cdc = meeting.peer.next();
    change(&mut cdc);
    meeting.peer.say(cdc)
}

/// Changes bytes of what would follow, which then counts as never said.
fn bytes(meeting: &mut Meeting<'_>, change: impl FnOnce(&mut [u8; LEN])) -> Outcome {
    let mut bytes = meeting.peer.next().bytes();
    change(&mut bytes);
    meeting.peer.qp.send(&bytes)
}

pub(super) const MESSAGES: &[Statement] = &[
    says("producer at the end of the ring", Ends::Connection, |m| {
        wrong(m, |cdc, ring| cdc.producer.count = ring)
    }),
    says("producer far beyond the ring", Ends::Connection, |m| {
        wrong(m, |cdc, _| cdc.producer.count = u32::MAX)
    }),
    says("producer in the negative numbers", Ends::Connection, |m| {
        wrong(m, |cdc, _| cdc.producer.count = 1 << 31)
    }),
    says("producer goes back", Ends::Connection, |m| {
        wrong(m, |cdc, _| cdc.producer.count -= 1)
    }),
    says("producer goes back to the start", Ends::Connection, |m| {
        wrong(m, |cdc, _| cdc.producer = Cursor::default())
    }),
    says(
        "producer one ring and a byte ahead",
        Ends::Connection,
        |m| {
            wrong(m, |cdc, _| {
                cdc.producer = Cursor::at(1, cdc.producer.count + 1);
            })
        },
    ),
    says("producer two wraps ahead", Ends::Connection, |m| {
        wrong(m, |cdc, _| cdc.producer.wrap = 2)
    }),
    says("producer a wrap back", Ends::Connection, |m| {
        wrong(m, |cdc, _| cdc.producer.wrap = u16::MAX)
    }),
    says(
        "producer beyond a window that is full",
        Ends::Connection,
        |m| {
            let ring = m.peer.far.ring;
            let room = vec![7; 4096];
            // Nobody reads at the socket.
            while m.peer.said.producer != Cursor::at(1, 0) {
                let left = ring - m.peer.said.producer.count as usize;
                m.peer.send(&room[..left.min(room.len())])?;
            }
            // What was read of before is room that the other side need not have told.
            wrong(m, |cdc, _| cdc.producer = Cursor::at(1, ring as u32 / 2))?;
            // Before somebody reads, and makes room.
            m.peer.await_state(state::ABORT)
        },
    ),
    says("consumer ahead of what was sent", Ends::Connection, |m| {
        wrong(m, |cdc, _| cdc.consumer.count += 1)
    }),
    says("consumer goes back", Ends::Connection, |m| {
        wrong(m, |cdc, _| cdc.consumer.count -= 1)
    }),
    says("consumer a wrap ahead", Ends::Connection, |m| {
        wrong(m, |cdc, _| cdc.consumer.wrap = 1)
    }),
    says("consumer a wrap back", Ends::Connection, |m| {
        wrong(m, |cdc, _| cdc.consumer.wrap = u16::MAX)
    }),
    says("consumer at the end of our ring", Ends::Connection, |m| {
        let (_, _, ring) = m.peer.ring();
        wrong(m, |cdc, _| cdc.consumer.count = ring as u32)
    }),
    says("consumer far beyond our ring", Ends::Connection, |m| {
        wrong(m, |cdc, _| cdc.consumer.count = u32::MAX)
    }),
    says("both cursors as far as can be", Ends::Connection, |m| {
        wrong(m, |cdc, _| {
            cdc.producer = Cursor::at(u16::MAX, u32::MAX);
            cdc.consumer = Cursor::at(u16::MAX, u32::MAX);
        })
    }),
    says("data that was never written", Ends::No, |m| {
        // What is there is the other side's ring as it was made: no other connection's bytes.
        odd(m, |cdc| cdc.producer.count += 1000)?;
        let mut got = vec![1; 1000];
        m.sock.recv_all(&mut got)?;
        check!(
            got.iter().all(|byte| *byte == 0),
            "a ring that nobody has written to is not empty"
        );
        Ok(())
    }),
    says("token of another use of the place", Ends::No, |m| {
        wrong(m, |cdc, _| {
            cdc.token ^= 0xff00;
            cdc.producer.count = u32::MAX;
        })
    }),
    says("token of another place", Ends::No, |m| {
        wrong(m, |cdc, _| {
            cdc.token ^= 0x01;
            cdc.producer.count = u32::MAX;
        })
    }),
    says("token of the last place", Ends::No, |m| {
        wrong(m, |cdc, _| {
            cdc.token |= 0xff;
            cdc.state = state::ABORT;
        })
    }),
    says("token zero", Ends::No, |m| {
        wrong(m, |cdc, _| {
            cdc.token = 0;
            cdc.state = state::ABORT;
        })
    }),
    says("token all ones", Ends::No, |m| {
        wrong(m, |cdc, _| {
            cdc.token = u32::MAX;
            cdc.state = state::CLOSED;
        })
    }),
    says("an older number, and nonsense", Ends::No, |m| {
        let old = m.peer.said.sequence.wrapping_sub(1);
        wrong(m, |cdc, _| {
            cdc.sequence = old;
            cdc.producer.count = u32::MAX;
        })
    }),
    says("an older number, and a goodbye", Ends::No, |m| {
        let old = m.peer.said.sequence.wrapping_sub(1);
        wrong(m, |cdc, _| {
            cdc.sequence = old;
            cdc.state = state::CLOSED | state::ABORT;
        })
    }),
    says("a number half the circle ahead", Ends::No, |m| {
        wrong(m, |cdc, _| {
            cdc.sequence = cdc.sequence.wrapping_add(0x8000);
            cdc.producer.count = u32::MAX;
        })
    }),
    says("the same message twice", Ends::No, |m| {
        let again = m.peer.said.bytes();
        m.peer.qp.send(&again)?;
        m.peer.qp.send(&again)
    }),
    says("the same number, other cursors", Ends::Connection, |m| {
        let same = m.peer.said.sequence;
        wrong(m, |cdc, _| {
            cdc.sequence = same;
            cdc.producer.count = u32::MAX;
        })
    }),
    says("numbers that leave a thousand out", Ends::No, |m| {
        odd(m, |cdc| cdc.sequence = cdc.sequence.wrapping_add(1000))
    }),
    says("numbers that wrap", Ends::No, |m| {
        odd(m, |cdc| cdc.sequence = 0x7fff)?;
        odd(m, |cdc| cdc.sequence = 0xfff0)?;
        for _ in 0..20 {
            odd(m, |_| {})?;
        }
        Ok(())
    }),
    says("write blocked, without data", Ends::No, |m| {
        odd(m, |cdc| cdc.flags = producer::BLOCKED)?;
        odd(m, |cdc| cdc.flags = 0)
    }),
    says("two hundred requests for an update", Ends::No, |m| {
        for _ in 0..200 {
            odd(m, |cdc| cdc.flags = producer::UPDATE_REQUESTED)?;
        }
        odd(m, |cdc| cdc.flags = 0)
    }),
    says(
        "urgent data is on its way, and never comes",
        Ends::No,
        |m| {
            odd(m, |cdc| cdc.flags = producer::URGENT_PENDING)?;
            odd(m, |cdc| cdc.flags = 0)
        },
    ),
    says("urgent data is there, and is not", Ends::No, |m| {
        odd(m, |cdc| {
            cdc.flags = producer::URGENT_PRESENT | producer::URGENT_PENDING;
        })?;
        odd(m, |cdc| cdc.flags = 0)
    }),
    says("urgent data and a bad cursor", Ends::Connection, |m| {
        wrong(m, |cdc, ring| {
            cdc.flags = producer::URGENT_PRESENT;
            cdc.producer.count = ring;
        })
    }),
    says("every byte urgent", Ends::No, |m| {
        for _ in 0..20 {
            m.peer.put(b"u")?;
            odd(m, |cdc| {
                cdc.flags = producer::URGENT_PRESENT | producer::URGENT_PENDING;
            })?;
        }
        odd(m, |cdc| cdc.flags = 0)?;
        // Nothing is before them, so that each is out of line at once, as with TCP.
        let mut byte = [0];
        check_eq!(m.sock.recv(&mut byte, libc::MSG_OOB)?, 1, "recv(MSG_OOB)");
        check_eq!(byte, *b"u", "the urgent byte");
        Ok(())
    }),
    says("a failover that never was", Ends::No, |m| {
        let last = m.peer.said.sequence;
        wrong(m, |cdc, _| {
            cdc.flags = producer::FAILOVER;
            cdc.sequence = last;
            cdc.producer.count = u32::MAX;
        })
    }),
    says("a failover with what comes next", Ends::No, |m| {
        wrong(m, |cdc, _| cdc.flags = producer::FAILOVER)
    }),
    says("a failover in the past", Ends::No, |m| {
        let old = m.peer.said.sequence.wrapping_sub(100);
        wrong(m, |cdc, _| {
            cdc.flags = producer::FAILOVER;
            cdc.sequence = old;
        })
    }),
    says("a failover, and then a step back", Ends::No, |m| {
        // Only then is an older cursor no violation: what goes again is there already.
        let last = m.peer.said;
        wrong(m, |cdc, _| {
            cdc.flags = producer::FAILOVER;
            cdc.sequence = last.sequence;
        })?;
        odd(m, |cdc| cdc.producer.count -= 3)?;
        m.peer.said.producer = last.producer;
        Ok(())
    }),
    says("reserved flags", Ends::No, |m| {
        odd(m, |cdc| (cdc.flags, cdc.state) = (0x07, 0x1f))?;
        odd(m, |cdc| (cdc.flags, cdc.state) = (0, 0))
    }),
    says("reserved bytes", Ends::No, |m| {
        m.peer.said = m.peer.next();
        let mut bytes = m.peer.said.bytes();
        bytes[26..].fill(0xff);
        bytes[8..10].fill(0xff);
        bytes[16..18].fill(0xff);
        m.peer.qp.send(&bytes)
    }),
    says("reset", Ends::Connection, |m| {
        odd(m, |cdc| cdc.state = state::ABORT)
    }),
    says(
        "reset, with cursors that cannot be",
        Ends::Connection,
        |m| {
            wrong(m, |cdc, _| {
                cdc.state = state::ABORT;
                cdc.producer = Cursor::at(9, u32::MAX);
                cdc.consumer = Cursor::at(9, u32::MAX);
            })
        },
    ),
    says(
        "all that can be said of a connection",
        Ends::Connection,
        |m| odd(m, |cdc| cdc.state = 0xff),
    ),
    says(
        "reset, and then on as if nothing were",
        Ends::Connection,
        |m| {
            odd(m, |cdc| cdc.state = state::ABORT)?;
            odd(m, |cdc| cdc.state = 0)?;
            m.peer.put(b"data of a dead connection")?;
            odd(m, |cdc| cdc.state = 0)
        },
    ),
    says(
        "a violation, and then a hundred more",
        Ends::Connection,
        |m| {
            for count in 0..100 {
                wrong(m, |cdc, ring| {
                    cdc.sequence += count;
                    cdc.producer.count = ring + u32::from(count);
                })?;
            }
            Ok(())
        },
    ),
    says("the end, and then more data", Ends::No, |m| {
        odd(m, |cdc| cdc.state = state::DONE_WRITING)?;
        let mut byte = [0];
        check_eq!(m.sock.recv(&mut byte, 0)?, 0, "recv() at the end");
        // What is said once stays said.
        odd(m, |cdc| cdc.state = 0)?;
        check_eq!(m.sock.recv(&mut byte, 0)?, 0, "recv() at the end, again");
        m.sock.send_all(b"ours goes on")?;
        check_eq!(m.peer.receive(12)?, b"ours goes on", "after the end");
        // A connection that has ended cannot show that it goes on.
        m.renew()
    }),
    says("length 43", Ends::No, |m| {
        bytes(m, |bytes| {
            bytes[1] = 43;
            bytes[12] = 0xff;
        })
    }),
    says("length 0", Ends::No, |m| {
        bytes(m, |bytes| {
            bytes[1] = 0;
            bytes[25] = state::ABORT;
        })
    }),
    says("length 255", Ends::No, |m| {
        bytes(m, |bytes| {
            bytes[1] = 255;
            bytes[25] = state::ABORT;
        })
    }),
    says("type 0xff", VIOLATION, |m| {
        bytes(m, |bytes| bytes[0] = 0xff)
    }),
    says("type 0x00", VIOLATION, |m| bytes(m, |bytes| bytes[0] = 0)),
];

/// An immediate (Documentation/immediates.rst): token, flags and consumed.
fn immediate(meeting: &mut Meeting<'_>, data: &[u8], token: u32, low: u32) -> Outcome {
    let far = meeting.peer.far;
    let at = far.address + u64::from(meeting.peer.said.producer.count);
    let word = ((token & 0x3fff) << 18) | low;
    meeting
        .peer
        .qp
        .write_with_immediate(data, at, far.rkey, word)
}

const WRAPS: u32 = 1 << 17;
const BLOCKED: u32 = 1 << 16;

/// As [`immediate`], to where the ring begins.
fn immediate_at_start(meeting: &mut Meeting<'_>, data: &[u8], low: u32) -> Outcome {
    let far = meeting.peer.far;
    let word = ((far.token & 0x3fff) << 18) | low;
    meeting
        .peer
        .qp
        .write_with_immediate(data, far.address, far.rkey, word)
}

pub(super) const IMMEDIATES: &[Statement] = &[
    says("an immediate as it should be", Ends::No, |m| {
        let token = m.peer.far.token;
        immediate(m, b"data", token, 0)?;
        m.peer.said.producer.count += 4;
        m.peer.said.sequence += 1;
        let mut got = [0; 4];
        m.sock.recv_all(&mut got)?;
        check_eq!(&got, b"data", "what came with an immediate");
        Ok(())
    }),
    says("an immediate for another use of the place", Ends::No, |m| {
        let token = m.peer.far.token ^ 0x0100;
        immediate(m, b"data", token, 0xffff)
    }),
    says("an immediate for another place", Ends::No, |m| {
        let token = m.peer.far.token ^ 0x0080;
        immediate(m, b"data", token, 0xffff)
    }),
    says("an immediate for the last place", Ends::No, |m| {
        immediate(m, b"data", 0x3fff, 0xffff)
    }),
    says("more consumed than was sent", Ends::Connection, |m| {
        let token = m.peer.far.token;
        immediate(m, b"data", token, 1)
    }),
    says("more consumed than a ring", Ends::Connection, |m| {
        let token = m.peer.far.token;
        immediate(m, b"data", token, 0xffff)
    }),
    says("a ring consumed", Ends::Connection, |m| {
        let token = m.peer.far.token;
        let (_, _, ring) = m.peer.ring();
        immediate(m, b"", token, ring as u32)
    }),
    says("wraps, and nothing written", Ends::Connection, |m| {
        let token = m.peer.far.token;
        immediate(m, b"", token, WRAPS)
    }),
    says("wraps, and more than a ring", Ends::Connection, |m| {
        // Up to the end, and from the start beyond where it began.
        let more = vec![1; m.peer.said.producer.count as usize + 1];
        immediate_at_start(m, &more, WRAPS)
    }),
    says("beyond the end without a wrap", Ends::Connection, |m| {
        let ring = m.peer.far.ring;
        let part = vec![2; 8192];
        while ring - m.peer.said.producer.count as usize > 8000 {
            let left = (ring - m.peer.said.producer.count as usize - 8000).min(part.len());
            m.peer.send(&part[..left])?;
            let mut got = vec![0; left];
            m.sock.recv_all(&mut got)?;
        }
        immediate_at_start(m, &part, 0)
    }),
    says("blocked, with nothing, a hundred times", Ends::No, |m| {
        let token = m.peer.far.token;
        for _ in 0..100 {
            immediate(m, b"", token, BLOCKED)?;
            m.peer.said.sequence = m.peer.said.sequence.wrapping_add(1);
        }
        Ok(())
    }),
    says(
        "numbers of messages that immediates have had",
        Ends::No,
        |m| {
            let token = m.peer.far.token;
            for _ in 0..3 {
                immediate(m, b"", token, 0)?;
            }
            // Older than the immediates: dropped.
            let mut old = m.peer.next();
            old.producer.count = u32::MAX;
            m.peer.qp.send(&old.bytes())?;
            m.peer.said.sequence = m.peer.said.sequence.wrapping_add(3);
            Ok(())
        },
    ),
    says("a long write with an immediate", Ends::No, |m| {
        let token = m.peer.far.token;
        let data: Vec<u8> = (0..16_384u32).map(|n| (n ^ (n >> 7)) as u8).collect();
        immediate(m, &data, token, 0)?;
        m.peer.said.producer.count += data.len() as u32;
        m.peer.said.sequence += 1;
        let mut got = vec![0; data.len()];
        m.sock.recv_all(&mut got)?;
        check!(got == data, "what came with a long write differs");
        Ok(())
    }),
];

pub(super) const LENGTHS: &[Statement] = &[
    says("a SEND of nothing", Ends::No, |m| m.peer.qp.send(&[])),
    says("a SEND of one byte", Ends::No, |m| m.peer.qp.send(&[CDC])),
    says("43 bytes of a CDC message", Ends::No, |m| {
        let mut bytes = m.peer.next().bytes();
        bytes[25] = state::ABORT;
        m.peer.qp.send(&bytes[..43])
    }),
    says("every truncation of a CDC message", Ends::No, |m| {
        let mut bytes = m.peer.next().bytes();
        bytes[12] = 0xff;
        for length in 0..LEN {
            m.peer.qp.send(&bytes[..length])?;
        }
        Ok(())
    }),
    says("a CDC message of 45 bytes", Ends::No, |m| long(m, 45)),
    says("a CDC message of 4096 bytes", Ends::No, |m| long(m, 4096)),
    says("a CDC message of 8192 bytes", Ends::No, |m| long(m, 8192)),
    says("a SEND longer than any message", Ends::Link, |m| {
        let bytes = vec![CDC; 8193];
        m.peer.qp.send(&bytes)
    }),
    says("an immediate that nobody has agreed to", Ends::No, |m| {
        let token = m.peer.far.token;
        immediate(m, b"data", token, 0xffff)
    }),
    says("an RDMA READ", Ends::Link, |m| {
        let far = m.peer.far;
        m.peer.qp.settle(Duration::from_secs(5))?;
        m.peer.qp.read(16, far.address, far.rkey)?;
        let outcome = m.peer.qp.settle(Duration::from_secs(10))?;
        check!(
            outcome
                .as_ref()
                .is_some_and(|all| all.iter().all(|one| *one != crate::verbs::Status::Success)),
            "the other side's memory can be read: {outcome:?}"
        );
        Ok(())
    }),
];

/// A CDC message as it should be, with more behind it.
fn long(meeting: &mut Meeting<'_>, length: usize) -> Outcome {
    meeting.peer.said = meeting.peer.next();
    let mut bytes = meeting.peer.said.bytes().to_vec();
    bytes.resize(length, 0xff);
    meeting.peer.qp.send(&bytes)
}
