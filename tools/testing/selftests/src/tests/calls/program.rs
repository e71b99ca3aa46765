//! One program: a few connections, and threads that call whatever its script says on them.

use super::arena::Arena;
use super::board::Board;
use super::call::{self, Hand};
use super::kcov::Kcov;
use super::netlink::Families;
use super::script::{Script, THREADS};
use super::table::{Table, What};
use super::APART;
use crate::kind::Host;
use crate::mode::{self, Mode};
use crate::runner::{own_stacks, Ctx};
use crate::sys::{self, Sock};
use crate::{check, Context, Fail, Outcome};
use rand::rngs::SmallRng;
use rand::SeedableRng;
use std::fs::File;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

/// A call that has not come back by then is sent a signal.
const SIGNAL_AFTER: Duration = Duration::from_millis(60);
/// One that has not come back by then, though signals were sent, hangs.
const CALL_PATIENCE: Duration = Duration::from_secs(100);
/// nobody
const USER: libc::uid_t = 65_534;

/// What a thread is at.
#[derive(Default)]
struct At {
    thread: AtomicI32,
    /// Calls that it has begun; odd while it is in one.
    steps: AtomicU64,
    call: AtomicU64,
}

/// Network namespaces, by descriptors that no program closes.
pub struct Spaces {
    pub hosts: [RawFd; 2],
    pub apart: RawFd,
}

pub fn run(
    ctx: &Ctx,
    board: &'static Board,
    families: &Families,
    script: &Script,
    worker: usize,
) -> Outcome {
    let open = |name: &str| -> Outcome<RawFd> {
        Ok(File::open(format!("/run/netns/{name}"))
            .during(name)?
            .into_raw_fd())
    };
    let spaces = Spaces {
        hosts: [open("A")?, open("B")?],
        apart: open(APART)?,
    };
    handle_signals();
    // What it has for all its life, for threads that nobody may wait for.
    let table: &'static Table = Box::leak(Box::default());
    let spaces: &'static Spaces = Box::leak(Box::new(spaces));
    let at: &'static [At; THREADS] = Box::leak(Box::default());
    begin(&ctx.with_kind(script.kind).unasked(), board, table)?;

    let ready = Arc::new(Barrier::new(THREADS + 1));
    let families: Families = families.clone();
    let families: &'static Families = Box::leak(Box::new(families));
    let mut threads = Vec::new();
    for (number, calls) in script.calls.iter().enumerate() {
        let (calls, ready) = (calls.clone(), ready.clone());
        threads.push(std::thread::spawn(move || -> Outcome {
            // SAFETY: no pointers.
            let thread = unsafe { libc::gettid() };
            at[number].thread.store(thread, Ordering::Relaxed);
            let entered = sys::enter(Host::BOTH[number % 2]);
            let prepared = Arena::new().and_then(|arena| Ok((arena, Kcov::start()?)));
            ready.wait();
            // The program's rights are given up here.
            ready.wait();
            entered?;
            let (arena, kcov) = prepared.during("KCOV")?;
            let mut hand = Hand {
                random: SmallRng::seed_from_u64(0),
                arena,
                table,
                spaces,
                families,
            };
            for seed in calls {
                hand.random = SmallRng::seed_from_u64(seed.into());
                hand.arena.begin();
                let (number_of, call) = call::choose(&mut hand.random);
                at[number].call.store(number_of as u64, Ordering::Relaxed);
                at[number].steps.fetch_add(1, Ordering::Relaxed);
                let made = (call.make)(&mut hand);
                at[number].steps.fetch_add(1, Ordering::Relaxed);
                board.count(number_of, made.result >= 0);
                made.verify(call.name)?;
                if let Some(kcov) = &kcov {
                    board.places_found[worker].fetch_add(kcov.new_places(board), Ordering::Relaxed);
                }
            }
            Ok(())
        }));
    }
    ready.wait();
    if script.by_user {
        // SAFETY: no pointers. Of all threads.
        sys::cvt(unsafe { libc::setresuid(USER, USER, USER) }).during("setresuid()")?;
    }
    ready.wait();
    watch(board, at, || {
        threads.iter().all(|thread| thread.is_finished())
    })?;
    threads.into_iter().try_for_each(super::super::join)
}

/// Sends signals to threads whose calls wait, until all have ended.
fn watch(board: &Board, at: &[At; THREADS], ended: impl Fn() -> bool) -> Outcome {
    let mut seen = [(0, Instant::now()); THREADS];
    while !ended() {
        for (at, seen) in at.iter().zip(&mut seen) {
            let steps = at.steps.load(Ordering::Relaxed);
            if seen.0 != steps {
                *seen = (steps, Instant::now());
            }
            if steps % 2 == 0 || seen.1.elapsed() < SIGNAL_AFTER {
                continue;
            }
            board.signals.fetch_add(1, Ordering::Relaxed);
            let thread = at.thread.load(Ordering::Relaxed);
            // SAFETY: no pointers; a thread of this process.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR1) };
            check!(
                seen.1.elapsed() < CALL_PATIENCE,
                "{} has not come back for {} s, and no signal ends it; threads:\n{}",
                call::CALLS[at.call.load(Ordering::Relaxed) as usize].name,
                CALL_PATIENCE.as_secs(),
                own_stacks()
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Signals end calls, and do nothing else.
fn handle_signals() {
    extern "C" fn nothing(_: i32) {}
    for signal in [
        libc::SIGUSR1,
        libc::SIGIO,
        libc::SIGURG,
        libc::SIGPIPE,
        libc::SIGALRM,
    ] {
        // SAFETY: all zeroes is a valid sigaction, without SA_RESTART; the handler may run at any moment.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as *const () as usize;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
    // Nobody waits for the processes that a program makes.
    // SAFETY: no pointers.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// What a program has in the beginning: a listener, two connections, a pipe, an epoll, a file.
fn begin(ctx: &Ctx, board: &Board, table: &Table) -> Outcome {
    let listener = ctx.socket(Host::B)?;
    // Of its own: a client remembers servers that did not speak SMC.
    listener
        .bind(Host::B.address(ctx.kind, 0))
        .during("bind()")?;
    listener.listen(8).during("listen()")?;
    let address = listener.local()?;
    table.add_port(address.port());
    for blocking in [false, true] {
        let pair = ctx.pair_from(&listener, address)?;
        board.connections.fetch_add(1, Ordering::Relaxed);
        if mode::of(&pair.client).is_ok_and(|mode| mode == Mode::Rdma) {
            board.by_rdma.fetch_add(1, Ordering::Relaxed);
        }
        for sock in [pair.client, pair.server] {
            sock.set_nonblocking(!blocking)?;
            add(table, sock, What::Socket);
        }
    }
    add(table, listener, What::Listener);
    let (out, into) = sys::pipe()?;
    table.add(out.into_raw_fd().into(), What::PipeOut);
    table.add(into.into_raw_fd().into(), What::PipeIn);
    // SAFETY: no pointers.
    let epoll = sys::cvt(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    table.add(epoll.into(), What::Epoll);
    // SAFETY: a name, which ends with a zero.
    let file = sys::cvt(unsafe { libc::memfd_create(c"calls".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: no pointers.
    sys::cvt(unsafe { libc::ftruncate(file, 200_000) })?;
    table.add(file.into(), What::File);
    Ok(())
}

fn add(table: &Table, sock: Sock, what: What) {
    table.add(OwnedFd::from(sock).into_raw_fd().into(), what);
}

impl call::Made {
    /// What no kernel may return.
    fn verify(&self, name: &str) -> Outcome {
        if self.result >= 0 {
            check!(
                self.result as u64 <= self.most,
                "{name} returned {}, and was asked for {}; {}",
                self.result,
                self.most,
                call::last()
            );
            return Ok(());
        }
        // Beyond are the kernel's own.
        if self.result < -133 {
            return Err(Fail(format!(
                "{name} failed with {}, which no program may see; {}",
                -self.result,
                call::last()
            )));
        }
        Ok(())
    }
}
