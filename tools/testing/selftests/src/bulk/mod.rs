//! A bulk program that checks itself: two ends write and read at once, in every way that a program can.
//!
//! What the ends of a connection do is a [`Plan`], which a number makes. Every byte tells its place in
//! the stream, the totals are compared, and a connection that is to end by a reset has to.

mod calls;
mod end;
mod input;
mod output;
pub mod plan;

use crate::kind::{Expect, Host, Kind};
use crate::mode::{self, Mode};
use crate::pattern::Pattern;
use crate::rig::SoftRoce;
use crate::runner::{Ctx, Needs, Suite, Test};
use crate::sys::Sock;
use crate::{check, check_eq, Context, Fail, Outcome};
pub use end::is_clean;
use end::{Came, Progress};
use input::Reader;
use output::Writer;
use plan::{Ending, Plan, Side, PLANS};
use rand::rngs::SmallRng;
use rand::SeedableRng;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::sync::Arc;
use std::time::Duration;

/// For `smc-selftest bulk`: plain TCP first.
pub static SUITE: Suite = Suite {
    name: "bulk",
    kinds: &Kind::ALL,
    module: true,
    divisor: 1,
    roce: SoftRoce::Stock,
    subjects: &[],
    about: "every way to write against every way to read, with every way to wait at both ends",
};

pub const ALL: Test = Test {
    name: "bulk.all",
    body: |ctx| play(ctx, PLANS / ctx.divisor as u64, 400_000),
    limit: 3600,
    needs: Needs::Any,
};

/// Without any progress for so long, a connection hangs. Pauses and lost edges of a busy host are shorter.
const PATIENCE: Duration = Duration::from_secs(60);

/// Plays a number of plans one after the other; which ones, the seed decides.
pub fn play(ctx: &Ctx, count: u64, largest_total: usize) -> Outcome {
    let first = ctx.seed % PLANS;
    let mut bytes = 0;
    let road = Road::smooth();
    for done in 0..count {
        if done > 0 && done % 50 == 0 {
            eprintln!("# {}: {done} of {count} plans", ctx.kind.name());
        }
        let plan = Plan::new(ctx.seed, first + done, largest_total);
        bytes += whole(ctx, &plan, &road).map_err(|Fail(words)| {
            // Whether it is the plan's fault.
            let over_tcp = match ctx.kind.expect() {
                Expect::Plain => String::new(),
                _ => match whole(&ctx.with_kind(ctx.kind.plain()), &plan, &road) {
                    Ok(_) => "\nover TCP the same plan passes".to_owned(),
                    Err(failure) => format!("\nover TCP the same plan fails, too: {failure}"),
                },
            };
            Fail(format!("{words}\n{plan}{over_tcp}"))
        })?;
    }
    eprintln!(
        "# {}: {count} plans from {first} of seed {}, {bytes} bytes checked",
        ctx.kind.name(),
        ctx.seed
    );
    Ok(())
}

/// Where a connection is made, and what it may meet.
pub struct Road {
    pub client: Host,
    /// Something may be at work that ends it: then a clean error is an end, too.
    pub rough: bool,
    /// Links may go, and others stay: that ends a connection whose handshake is under way at its server, and no other.
    pub links_go: bool,
    /// Counts on whenever something was seen to have moved.
    pub beat: &'static AtomicU64,
}

/// Of roads that nobody watches.
static UNHEARD: AtomicU64 = AtomicU64::new(0);

impl Road {
    /// Nothing happens to it.
    pub fn smooth() -> Road {
        Road {
            client: Host::A,
            rough: false,
            links_go: false,
            beat: &UNHEARD,
        }
    }
}

/// What became of a connection.
pub enum Played {
    Whole {
        bytes: usize,
        by_rdma: bool,
    },
    /// It was ended, and the call that said so.
    Broken(String),
}

/// Why a connection is not played to its end.
enum Trouble {
    Broken(String),
    Wrong(Fail),
}

impl From<Fail> for Trouble {
    fn from(fail: Fail) -> Trouble {
        Trouble::Wrong(fail)
    }
}

/// The result of a call that a rough road may make fail.
fn called<T>(road: &Road, what: &str, result: io::Result<T>) -> Result<T, Trouble> {
    result.map_err(|error| {
        let words = format!("{what}: {error}");
        if road.rough && is_clean(&error) {
            Trouble::Broken(words)
        } else {
            Trouble::Wrong(Fail(words))
        }
    })
}

/// One connection by a plan that nothing may end; how many bytes came.
fn whole(ctx: &Ctx, plan: &Plan, road: &Road) -> Outcome<usize> {
    match connection(ctx, plan, road)? {
        Played::Whole { bytes, .. } => Ok(bytes),
        Played::Broken(words) => Err(Fail(words)),
    }
}

/// One connection by a plan.
pub fn connection(ctx: &Ctx, plan: &Plan, road: &Road) -> Outcome<Played> {
    match try_connection(ctx, plan, road) {
        Ok(played) => Ok(played),
        Err(Trouble::Broken(words)) => Ok(Played::Broken(words)),
        Err(Trouble::Wrong(fail)) => Err(fail),
    }
}

fn try_connection(ctx: &Ctx, plan: &Plan, road: &Road) -> Result<Played, Trouble> {
    let (near, far) = (road.client, road.client.other());
    let socket = |host| {
        let made = Sock::new(host, ctx.kind, libc::SOCK_CLOEXEC);
        called(road, "socket()", made)
    };
    let listener = socket(far)?;
    called(road, "bind()", listener.bind(far.address(ctx.kind, 0)))?;
    set_buffers(&listener, &plan.server)?;
    called(road, "listen()", listener.listen(1))?;
    let client = socket(near)?;
    set_buffers(&client, &plan.client)?;
    let address = listener.local().during("getsockname()")?;
    called(road, "connect()", client.connect(address))?;
    let server = match called(road, "accept()", listener.accept_of(&client))? {
        Some(server) => server,
        None if road.rough || road.links_go => {
            return Err(Trouble::Broken("accept(): the client is gone".into()))
        }
        None => return Err(Fail("connect() is done, and its server let it go".into()).into()),
    };
    if road.rough {
        // Whose reset is lost on the way is asked for it.
        for sock in [&client, &server] {
            called(road, "setsockopt()", sock.keep_alive())?;
        }
    }
    ctx.prove(near, &client)?;
    ctx.prove(far, &server)?;
    let by_rdma = ctx.kind.expect() != Expect::Plain && matches!(mode::of(&client), Ok(Mode::Rdma));

    let begin = |name, sock, own: Side, peers: u64, stream: u64| -> Outcome<Running> {
        let pattern = |stream| Pattern::of(&mut SmallRng::seed_from_u64(stream ^ plan.number));
        let writer = Writer::new(&own, pattern(stream), plan.seed ^ stream)?;
        let reader = Reader::new(&own, pattern(peers), plan.seed ^ peers)?;
        Ok(Running::begin(
            name, sock, plan, own, road.rough, writer, reader,
        ))
    };
    const STREAMS: (u64, u64) = (71, 72);
    let client = begin("client", client, plan.client, STREAMS.1, STREAMS.0)?;
    let server = begin("server", server, plan.server, STREAMS.0, STREAMS.1)?;
    let (client_came, server_came) = await_both(&client, &server, road)?;
    judge(plan, &plan.client, &client_came, &server_came, road).during("client to server")?;
    judge(plan, &plan.server, &server_came, &client_came, road).during("server to client")?;
    // Where a reset was due, who reset is not told by it.
    if let Some(words) = [&client_came, &server_came]
        .into_iter()
        .find_map(|came| came.broken.clone())
    {
        return Err(Trouble::Broken(words));
    }
    Ok(Played::Whole {
        bytes: client_came.read + server_came.read,
        by_rdma,
    })
}

fn set_buffers(sock: &Sock, side: &Side) -> Outcome {
    for (option, size) in [
        (libc::SO_SNDBUF, side.send_buffer),
        (libc::SO_RCVBUF, side.receive_buffer),
    ] {
        if size > 0 {
            sock.set(libc::SOL_SOCKET, option, size)?;
        }
    }
    Ok(())
}

/// An end at work in a thread of its own.
struct Running {
    name: &'static str,
    side: Side,
    progress: Arc<Progress>,
    result: Receiver<Outcome<Came>>,
}

impl Running {
    fn begin(
        name: &'static str,
        sock: Sock,
        plan: &Plan,
        side: Side,
        rough: bool,
        writer: Writer,
        reader: Reader,
    ) -> Running {
        let progress = Arc::new(Progress::default());
        let (sender, result) = channel();
        let (plan, shared) = (*plan, Arc::clone(&progress));
        // Not waited for: a hang would be inherited.
        std::thread::spawn(move || {
            let came = end::play(sock, &plan, &side, rough, writer, reader, &shared);
            // Nobody listens any more after a hang.
            let _ = sender.send(came);
        });
        Running {
            name,
            side,
            progress,
            result,
        }
    }

    fn words(&self) -> String {
        format!(
            "the {} has written {} of {} bytes, read {}{}",
            self.name,
            self.progress.written.load(Ordering::Relaxed),
            self.side.total,
            self.progress.read.load(Ordering::Relaxed),
            if self.progress.finished.load(Ordering::Relaxed) {
                ", and finished"
            } else {
                ""
            }
        )
    }
}

fn await_both(client: &Running, server: &Running, road: &Road) -> Outcome<(Came, Came)> {
    let ends = [client, server];
    let measure = || {
        ends.map(|end| {
            (
                end.progress.written.load(Ordering::Relaxed),
                end.progress.read.load(Ordering::Relaxed),
                end.progress.finished.load(Ordering::Relaxed),
            )
        })
    };
    let words = || format!("{}; {}", client.words(), server.words());
    let wait = |end: &Running| -> Outcome<Came> {
        loop {
            let before = measure();
            match end.result.recv_timeout(PATIENCE) {
                Ok(came) => {
                    return came
                        .map_err(|Fail(text)| Fail(format!("{}: {text}; {}", end.name, words())))
                }
                Err(RecvTimeoutError::Timeout) => {
                    check!(
                        measure() != before,
                        "nothing has moved for {} s: {}",
                        PATIENCE.as_secs(),
                        words()
                    );
                    road.beat.fetch_add(1, Ordering::Relaxed);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Fail(format!("the {} panicked; {}", end.name, words())))
                }
            }
        }
    };
    match (wait(client), wait(server)) {
        (Ok(client), Ok(server)) => Ok((client, server)),
        (Err(Fail(one)), Err(Fail(two))) => Err(Fail(format!("{one}\n{two}"))),
        (Err(failure), _) | (_, Err(failure)) => Err(failure),
    }
}

/// What an end has written, against what its peer has read.
fn judge(plan: &Plan, side: &Side, came: &Came, peer: &Came, road: &Road) -> Outcome {
    if road.rough {
        check!(
            peer.read <= came.written,
            "{} bytes were written, and {} read",
            came.written,
            peer.read
        );
    }
    match (plan.ending, side.stops) {
        // Who has seen the end of the stream has got all of it.
        (Ending::Orderly, _) if !(road.rough && peer.reset) => {
            check_eq!(peer.read, side.total, "bytes read");
            if !(road.rough && came.reset) {
                check_eq!(came.written, side.total, "bytes written");
            }
        }
        (Ending::Orderly, _) => {}
        (_, Some(stops)) => {
            if !(road.rough && came.reset) {
                check_eq!(came.read, stops, "bytes read before the close");
            }
            check!(
                peer.read <= came.written,
                "{} bytes were written, and {} read",
                came.written,
                peer.read
            );
            check!(peer.reset, "the reset has not been noticed");
        }
        (_, None) => {}
    }
    Ok(())
}
