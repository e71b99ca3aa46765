//! What is done with descriptors whatever they are, and what is around a socket: namespaces, netlink.

use super::*;

pub(super) fn close(hand: &mut Hand) -> Made {
    let (fd, _) = hand.table.take(&mut hand.random);
    any(raw(libc::SYS_close, &[arg(fd)]))
}

pub(super) fn close_range(hand: &mut Hand) -> Made {
    let (fd, _) = hand.table.take(&mut hand.random);
    let flags = hand.one(&[0, 2 /* UNSHARE */, 4 /* CLOEXEC */, -1]);
    any(raw(libc::SYS_close_range, &[arg(fd), arg(fd), arg(flags)]))
}

pub(super) fn dup(hand: &mut Hand) -> Made {
    let fd = hand.table.any(&mut hand.random);
    let what = hand.table.what(fd);
    let result = raw(libc::SYS_dup, &[arg(fd)]);
    hand.table.add(result, what);
    any(result)
}

/// Onto a descriptor that others may be in a call on.
pub(super) fn dup3(hand: &mut Hand) -> Made {
    let from = hand.table.any(&mut hand.random);
    let to = hand.table.any(&mut hand.random);
    let flags = hand.one(&[0, libc::O_CLOEXEC, -1]);
    let result = raw(libc::SYS_dup3, &[arg(from), arg(to), arg(flags)]);
    if result >= 0 {
        hand.table.add(result, hand.table.what(from));
    }
    any(result)
}

pub(super) fn fcntl(hand: &mut Hand) -> Made {
    let fd = arg(hand.table.any(&mut hand.random));
    let own = std::process::id() as i32;
    let (command, argument) = match hand.random.gen_range(0..12) {
        0..4 => {
            let mut flags = 0;
            for flag in [
                libc::O_NONBLOCK,
                libc::O_ASYNC,
                libc::O_APPEND,
                libc::O_DIRECT,
            ] {
                let times = if flag == libc::O_NONBLOCK { 2 } else { 5 };
                if hand.once_in(times) {
                    flags |= flag;
                }
            }
            (libc::F_SETFL, arg(flags))
        }
        // Only to itself: nobody else has asked for signals.
        4 => (libc::F_SETOWN, arg(hand.one(&[own, 0, own, i32::MIN]))),
        5 => (
            10, /* F_SETSIG */
            arg(hand.one(&[0, libc::SIGUSR1, libc::SIGIO, 65, -1])),
        ),
        6 => {
            let (kind, who) = hand.one(&[(0i32, 0), (1, own), (9, own)]);
            let owner = [kind.to_ne_bytes(), who.to_ne_bytes()].concat();
            (15 /* F_SETOWN_EX */, hand.put(&owner))
        }
        7 => (
            hand.one(&[
                libc::F_GETFL,
                libc::F_GETOWN,
                11, /* F_GETSIG */
                libc::F_GETFD,
            ]),
            0,
        ),
        8 => (libc::F_SETPIPE_SZ, hand.int() as usize),
        9 => (libc::F_SETLK, hand.put(&[0; 32])),
        10 => (libc::F_SETFD, arg(libc::FD_CLOEXEC)),
        _ => (hand.random.gen_range(1000..1050), 0),
    };
    any(raw(libc::SYS_fcntl, &[fd, arg(command), argument]))
}

/// Descriptors through a socket of AF_UNIX, to another thread or to nobody.
pub(super) fn pass(hand: &mut Hand) -> Made {
    let fd = hand.of(What::Unix);
    let byte = hand.arena.put(b"x");
    let vector = hand.arena.put(&words(&[byte, 1]));
    let mut control = words(&[16 + 8]);
    control.extend(
        [
            libc::SOL_SOCKET.to_ne_bytes(),
            libc::SCM_RIGHTS.to_ne_bytes(),
        ]
        .concat(),
    );
    for _ in 0..2 {
        control.extend(hand.table.any(&mut hand.random).to_ne_bytes());
    }
    let length = control.len();
    let control = hand.put(&control);
    let message = hand.put(&words(&[0, 0, vector, 1, control, length, 0]));
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    bytes(raw(libc::SYS_sendmsg, &[fd, message, arg(flags)]), 1)
}

pub(super) fn take(hand: &mut Hand) -> Made {
    let fd = hand.of(What::Unix);
    let byte = hand.arena.put(b" ");
    let vector = hand.arena.put(&words(&[byte, 1]));
    let control = hand.arena.put(&[0; 32]);
    let room = hand.one(&[32, 32, 24, 20, 0]);
    let message = hand.arena.put(&words(&[0, 0, vector, 1, control, room, 0]));
    let result = raw(libc::SYS_recvmsg, &[fd, message, arg(libc::MSG_DONTWAIT)]);
    if result >= 0 {
        let mut length = [0; 8];
        length.copy_from_slice(&hand.arena.get(control, 8));
        let length = usize::from_ne_bytes(length).min(32);
        if length > 16 {
            for fd in hand.arena.get(control + 16, length - 16).chunks_exact(4) {
                let fd = RawFd::from_ne_bytes([fd[0], fd[1], fd[2], fd[3]]);
                hand.table.add(fd.into(), What::Socket);
            }
        }
    }
    bytes(result, 1)
}

/// A process that has the same descriptors, does something with a few, and goes.
pub(super) fn fork(hand: &mut Hand) -> Made {
    let fds: [usize; 3] = std::array::from_fn(|_| arg(hand.table.any(&mut hand.random)));
    let acts: [u32; 3] = hand.random.gen();
    let (place, length) = (hand.arena.put(b"from a child"), 12);
    let nanoseconds = hand.random.gen_range(0..30_000_000);
    let pause = hand.put(&words(&[0, nanoseconds]));
    let result = raw(libc::SYS_fork, &[]);
    if result != 0 {
        return any(result);
    }
    // Other threads' locks stay taken for ever here: system calls, and nothing else.
    for (fd, act) in fds.into_iter().zip(acts) {
        match act % 6 {
            0 => raw(libc::SYS_close, &[fd]),
            1 => raw(libc::SYS_shutdown, &[fd, (act as usize >> 8) & 3]),
            2 => raw(
                libc::SYS_sendto,
                &[
                    fd,
                    place,
                    length,
                    arg(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL),
                ],
            ),
            3 => raw(
                libc::SYS_recvfrom,
                &[fd, place, length, arg(libc::MSG_DONTWAIT)],
            ),
            4 => raw(libc::SYS_nanosleep, &[pause]),
            _ => raw(libc::SYS_dup, &[fd]),
        };
    }
    // SAFETY: no pointers; ends this process.
    unsafe { libc::syscall(libc::SYS_exit_group, 0) };
    unreachable!("exit_group() does not come back")
}

/// What is for files.
pub(super) fn file(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (place, length) = hand.data();
    let offset = hand.int() as usize;
    any(match hand.random.gen_range(0..12) {
        0 => {
            // The mapping is of no socket, so that there is none.
            let protection = arg(libc::PROT_READ | libc::PROT_WRITE);
            raw(
                libc::SYS_mmap,
                &[0, 4096, protection, arg(libc::MAP_SHARED), fd, 0],
            )
        }
        1 => raw(libc::SYS_lseek, &[fd, offset, 0]),
        2 => raw(libc::SYS_fsync, &[fd]),
        3 => raw(libc::SYS_ftruncate, &[fd, offset]),
        4 => raw(libc::SYS_fallocate, &[fd, 0, 0, 4096]),
        5 => raw(libc::SYS_readahead, &[fd, 0, 4096]),
        6 => raw(libc::SYS_flock, &[fd, arg(libc::LOCK_EX | libc::LOCK_NB)]),
        7 => raw(libc::SYS_getdents64, &[fd, place, length]),
        8 => {
            let other = hand.of(What::File);
            raw(libc::SYS_copy_file_range, &[fd, 0, other, 0, length, 0])
        }
        9 => raw(libc::SYS_fchmod, &[fd, 0o600]),
        10 => raw(libc::SYS_fchown, &[fd, 7, 7]),
        _ => {
            let stat = hand.put(&[0; 144]);
            raw(libc::SYS_fstat, &[fd, stat])
        }
    })
}

/// Sockets are of the host in whose namespace they are made.
pub(super) fn setns(hand: &mut Hand) -> Made {
    let host = hand.one(&hand.spaces.hosts);
    any(raw(libc::SYS_setns, &[arg(host), arg(libc::CLONE_NEWNET)]))
}

/// A request, and a look at the answer.
pub(super) fn netlink(hand: &mut Hand) -> Made {
    let request = hand.families.request(&mut hand.random);
    let back = hand.one(&hand.spaces.hosts);
    if request.changes {
        raw(
            libc::SYS_setns,
            &[arg(hand.spaces.apart), arg(libc::CLONE_NEWNET)],
        );
    }
    let kind = arg(libc::SOCK_RAW | libc::SOCK_CLOEXEC);
    let fd = raw(
        libc::SYS_socket,
        &[arg(libc::AF_NETLINK), kind, arg(request.protocol)],
    );
    raw(libc::SYS_setns, &[arg(back), arg(libc::CLONE_NEWNET)]);
    if fd < 0 {
        return any(fd);
    }
    let fd = fd as usize;
    let place = hand.put(&request.message);
    let length = request.message.len();
    let result = raw(
        libc::SYS_sendto,
        &[fd, place, length, arg(libc::MSG_DONTWAIT)],
    );
    // Some answers are left unread, and dumps unfinished.
    let reads = hand.random.gen_range(0..6);
    let (answer, room) = hand.data();
    for _ in 0..reads {
        raw(
            libc::SYS_recvfrom,
            &[fd, answer, room, arg(libc::MSG_DONTWAIT)],
        );
    }
    raw(libc::SYS_close, &[fd]);
    bytes(result, length)
}
