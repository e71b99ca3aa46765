//! What two implementations do with each other.

use super::{enter, packets, socket, Door, Script, Side};
use rand::Rng;
use smc_selftest::kind::Kind;
use smc_selftest::sys::Sock;
use smc_selftest::{check, check_eq, Context, Fail, Outcome};

pub const SCRIPTS: &[Script] = &[
    Script::new("first_contact", first_contact),
    Script::new("group_is_reused", group_is_reused),
    Script::new("sizes_around_the_ring", sizes_around_the_ring),
    Script::new("both_ways_at_once", both_ways_at_once),
    Script::new("rings_of_other_sizes", rings_of_other_sizes),
    Script::new("small_messages", small_messages),
    Script::new("idle_link_is_tested", idle_link_is_tested),
];

/// Sends so many bytes of the outgoing stream.
pub fn send(side: &Side, sock: &Sock, offset: usize, mut length: usize) -> Outcome {
    let pattern = side.outgoing();
    let mut at = offset;
    while length > 0 {
        let part = pattern.at(at, length);
        sock.send_all(part).during(&format!("send at {at}"))?;
        at += part.len();
        length -= part.len();
    }
    Ok(())
}

/// Receives so many bytes of the incoming stream, each the right one.
pub fn receive(side: &Side, sock: &Sock, offset: usize, length: usize) -> Outcome {
    let mut data = vec![0; length];
    sock.recv_all(&mut data)
        .during(&format!("receive {length} bytes at {offset}"))?;
    side.incoming().verify(offset, &data)
}

/// There and back, so many bytes each way from an offset of the streams on.
pub fn there_and_back(side: &Side, sock: &Sock, offset: usize, length: usize) -> Outcome {
    if side.is_client {
        send(side, sock, offset, length)?;
        receive(side, sock, offset, length)
    } else {
        receive(side, sock, offset, length)?;
        send(side, sock, offset, length)
    }
}

/// Nothing comes any more but the end.
pub fn expect_end(sock: &Sock) -> Outcome {
    let rest = sock.recv_to_end().during("read to the end")?;
    check_eq!(rest.len(), 0, "bytes behind the last");
    Ok(())
}

fn first_contact(side: &Side) -> Outcome {
    check_eq!(side.groups()?.len(), 0, "link groups before");
    let sock = side.connection()?;
    there_and_back(side, &sock, 0, 1000)?;
    check_eq!(side.await_connections(1)?.len(), 1, "link groups");
    side.meet("counted")?;
    Ok(())
}

fn group_is_reused(side: &Side) -> Outcome {
    let before = side.await_connections(0)?;
    side.meet("before")?;
    let socks = [side.connection()?, side.connection()?];
    for (offset, sock) in socks.iter().enumerate() {
        there_and_back(side, sock, offset, 100)?;
    }
    let now = side.await_connections(2)?;
    check_eq!(now.len(), 1, "link groups");
    check_eq!(now[0].0, before[0].0, "the group's ID");
    side.meet("counted")?;
    Ok(())
}

fn sizes_around_the_ring(side: &Side) -> Outcome {
    let sock = side.connection()?;
    let own = side.conn(&sock)?.rmbe_size as usize;
    let theirs: usize = side
        .meet(&own.to_string())?
        .parse()
        .during("the other side's ring")?;
    check_eq!(
        side.conn(&sock)?.peer_rmbe_size as usize,
        theirs,
        "the other side's ring, as this one knows it"
    );
    let ring = own.max(theirs);
    let mut offset = 0;
    for length in [
        1,
        2,
        44,
        4095,
        4096,
        4097,
        ring / 2,
        ring - 1,
        ring,
        ring + 1,
        2 * ring - 1,
        2 * ring + 1,
        3 * ring + 7,
    ] {
        there_and_back(side, &sock, offset, length).during(&format!("{length} bytes"))?;
        offset += length;
    }
    Ok(())
}

fn both_ways_at_once(side: &Side) -> Outcome {
    const VOLUME: usize = 2 << 20;
    let sock = side.connection()?;
    // Pieces of every size, and never the same on both sides.
    let pieces = |stream: u64| {
        let mut random = side.random(stream + 2 * u64::from(side.is_client));
        let mut left = VOLUME;
        std::iter::from_fn(move || {
            let length = random.gen_range(1..100_000).min(left);
            left -= length;
            (length > 0).then_some(length)
        })
        .collect::<Vec<_>>()
    };
    let (outgoing, incoming) = (pieces(10), pieces(20));
    let (sent, received) = std::thread::scope(|scope| {
        let (from, to) = (side.outgoing(), &sock);
        let writer = scope.spawn(move || {
            let mut offset = 0;
            for mut length in outgoing {
                while length > 0 {
                    let part = from.at(offset, length);
                    to.send_all(part).during(&format!("send at {offset}"))?;
                    offset += part.len();
                    length -= part.len();
                }
            }
            Ok(())
        });
        let mut offset = 0;
        let mut received = Ok(());
        for length in incoming {
            received = receive(side, &sock, offset, length);
            if received.is_err() {
                break;
            }
            offset += length;
        }
        let sent: Outcome = writer
            .join()
            .unwrap_or_else(|_| Err(Fail("the writer panicked".into())));
        (sent, received)
    });
    sent.and(received)?;
    side.meet("all there")?;
    sock.shutdown(libc::SHUT_WR)?;
    expect_end(&sock)
}

/// Rings of several sizes in one group: each is a memory region of its own, whose key the other side has to know.
fn rings_of_other_sizes(side: &Side) -> Outcome {
    let mut socks = Vec::new();
    for (own, theirs) in [(16, 1024), (1024, 16), (256, 256)] {
        let size = if side.is_client { own } else { theirs } * 1024i32;
        let sized = |sock: &Sock| {
            for option in [libc::SO_RCVBUF, libc::SO_SNDBUF] {
                sock.set(libc::SOL_SOCKET, option, size)?;
            }
            Ok(())
        };
        let sock = match side.door_of(Kind::Smc4, sized)? {
            door @ Door::Inside(_) => enter(&door, Kind::Smc4)?,
            Door::Outside(address) => {
                let sock = socket(Kind::Smc4)?;
                sized(&sock)?;
                sock.connect(address).during("connect()")?;
                sock
            }
        };
        side.prove(&sock)?;
        let ring = side.conn(&sock)?.rmbe_size;
        let theirs = side.meet(&ring.to_string())?;
        check_eq!(
            side.conn(&sock)?.peer_rmbe_size.to_string(),
            theirs,
            "the other side's ring, as this one knows it"
        );
        there_and_back(side, &sock, 0, 200_000)?;
        socks.push(sock);
    }
    // All at once, now that every key was told.
    for sock in &socks {
        there_and_back(side, sock, 200_000, 20_000)?;
    }
    Ok(())
}

/// Messages that are answered one by one: each has to be told of at once.
fn small_messages(side: &Side) -> Outcome {
    let sock = side.connection()?;
    let mut random = side.random(30);
    let mut offset = 0;
    for _ in 0..300 {
        let length = random.gen_range(1..300);
        there_and_back(side, &sock, offset, length)?;
        offset += length;
    }
    Ok(())
}

/// Longer idle than the interval of TEST LINK: both sides ask and are answered, or the link would be gone.
fn idle_link_is_tested(side: &Side) -> Outcome {
    let sock = side.connection()?;
    there_and_back(side, &sock, 0, 100)?;
    let before = packets()?;
    std::thread::sleep(std::time::Duration::from_secs(7));
    let sent = packets()? - before;
    check!(sent >= 2, "only {sent} packets left an idle device in 7 s");
    there_and_back(side, &sock, 100, 100)
}
