//! What a thread makes its calls with, and the arguments that it chooses.

use super::*;

/// What a thread makes its calls with.
pub struct Hand {
    pub random: SmallRng,
    pub arena: Arena,
    pub table: &'static Table,
    pub spaces: &'static Spaces,
    pub families: &'static Families,
}

const MSG: [i32; 14] = [
    libc::MSG_DONTWAIT,
    libc::MSG_DONTWAIT,
    libc::MSG_PEEK,
    libc::MSG_WAITALL,
    libc::MSG_TRUNC,
    libc::MSG_CTRUNC,
    libc::MSG_OOB,
    libc::MSG_MORE,
    libc::MSG_EOR,
    libc::MSG_DONTROUTE,
    libc::MSG_ERRQUEUE,
    libc::MSG_ZEROCOPY,
    libc::MSG_FASTOPEN,
    libc::MSG_CMSG_CLOEXEC,
];

impl Hand {
    pub(super) fn sock(&mut self) -> usize {
        arg(self.table.pick(&mut self.random, What::Socket))
    }

    pub(super) fn of(&mut self, what: What) -> usize {
        arg(self.table.pick(&mut self.random, what))
    }

    pub(super) fn int(&mut self) -> i32 {
        int(&mut self.random)
    }

    pub(super) fn one<T: Copy>(&mut self, all: &[T]) -> T {
        one_of(&mut self.random, all)
    }

    /// Once in so many times.
    pub(super) fn once_in(&mut self, times: u32) -> bool {
        self.random.gen_range(0..times) == 0
    }

    pub(super) fn flags(&mut self) -> usize {
        if self.once_in(30) {
            return self.random.gen::<u32>() as usize;
        }
        let mut flags = libc::MSG_NOSIGNAL;
        while self.once_in(2) {
            flags |= self.one(&MSG);
        }
        arg(flags)
    }

    /// Bytes where the kernel can have them, or a place that is wrong.
    pub(super) fn put(&mut self, bytes: &[u8]) -> usize {
        if self.once_in(40) {
            self.arena.nowhere(&mut self.random)
        } else {
            self.arena.put(bytes)
        }
    }

    pub(super) fn data(&mut self) -> (usize, usize) {
        self.arena.buffer(&mut self.random)
    }

    /// An address, and its length.
    pub(super) fn address(&mut self) -> (Vec<u8>, i32) {
        let host = self.one(&[Host::A, Host::B, Host::B, Host::B]);
        let port = self.table.port(&mut self.random);
        let mut bytes = Vec::new();
        match self.random.gen_range(0..12) {
            0..6 => {
                bytes.extend((libc::AF_INET as u16).to_ne_bytes());
                bytes.extend(port.to_be_bytes());
                bytes.extend(match self.random.gen_range(0..8) {
                    0 => [127, 0, 0, 1],
                    1 => [0; 4],
                    2 => [224, 0, 0, 1],
                    3 => [10, 9, 0, 77],
                    _ => host.ipv4().octets(),
                });
                bytes.extend([0; 8]);
            }
            6..9 => {
                bytes.extend((libc::AF_INET6 as u16).to_ne_bytes());
                bytes.extend(port.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(match self.random.gen_range(0..6) {
                    0 => host.ipv4().to_ipv6_mapped().octets(),
                    1 => [0; 16],
                    2 => self.random.gen(),
                    _ => host.ipv6().octets(),
                });
                bytes.extend([0; 4]);
            }
            // Ends a connection.
            9 => bytes.resize(16, 0),
            10 => {
                bytes.extend((AF_SMC as u16).to_ne_bytes());
                bytes.extend(port.to_be_bytes());
                bytes.extend(host.ipv4().octets());
                bytes.extend([0; 8]);
            }
            _ => bytes.resize_with(self.random.gen_range(0..130), || self.random.gen()),
        }
        let length = match self.random.gen_range(0..12) {
            0 => self.int(),
            1 => self.random.gen_range(0..=bytes.len() as i32),
            _ => bytes.len() as i32,
        };
        (bytes, length)
    }

    /// Pieces of memory, their number, and how much they hold together.
    pub(super) fn vector(&mut self) -> (usize, usize, usize) {
        let count = match self.random.gen_range(0..20) {
            0 => 0,
            1 => 1025,
            2 => 1024,
            3 => return (self.arena.nowhere(&mut self.random), 3, usize::MAX),
            4 => {
                let one = self.arena.put(&words(&[0, 0]));
                return (one, self.int() as usize, usize::MAX);
            }
            _ => self.random.gen_range(1..6),
        };
        let mut all = Vec::new();
        let mut most = 0usize;
        for _ in 0..count {
            let (start, length) = match count {
                0..8 => self.data(),
                _ => (self.data().0, self.random.gen_range(0..50)),
            };
            all.extend([start, length]);
            most = most.saturating_add(length);
        }
        (self.arena.put(&words(&all)), count, most)
    }

    /// Ancillary data of a message to send.
    pub(super) fn control(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        for _ in 0..self.random.gen_range(0..4) {
            let (level, kind, data): (i32, i32, Vec<u8>) = match self.random.gen_range(0..8) {
                0..2 => {
                    let count = self.one(&[1, 1, 2, 3, 253]);
                    let fds =
                        (0..count).flat_map(|_| self.table.any(&mut self.random).to_ne_bytes());
                    (libc::SOL_SOCKET, libc::SCM_RIGHTS, fds.collect())
                }
                2 => (libc::SOL_SOCKET, libc::SCM_CREDENTIALS, vec![0; 12]),
                3 => (
                    libc::SOL_SOCKET,
                    libc::SO_TIMESTAMPING,
                    27u32.to_ne_bytes().into(),
                ),
                4 => (libc::SOL_SOCKET, libc::SO_MARK, 3u32.to_ne_bytes().into()),
                5 => (
                    libc::IPPROTO_IP,
                    libc::IP_TOS,
                    self.int().to_ne_bytes().into(),
                ),
                6 => (libc::IPPROTO_TCP, self.random.gen_range(0..40), vec![1; 8]),
                _ => {
                    let length = self.random.gen_range(0..64);
                    (
                        self.random.gen_range(0..300),
                        self.random.gen_range(0..90),
                        vec![7; length],
                    )
                }
            };
            let length = match self.random.gen_range(0..10) {
                0 => self.int() as usize,
                _ => 16 + data.len(),
            };
            all.extend(length.to_ne_bytes());
            all.extend(level.to_ne_bytes());
            all.extend(kind.to_ne_bytes());
            all.extend(data);
            all.resize(all.len().next_multiple_of(8), 0);
        }
        all
    }

    /// struct msghdr, and how much its pieces hold.
    pub(super) fn message(&mut self, to_send: bool) -> (Vec<u8>, usize) {
        let (name, name_length) = match self.random.gen_range(0..4) {
            0 => {
                let (address, length) = self.address();
                (self.put(&address), length)
            }
            _ => (0, 0),
        };
        let (vector, count, most) = self.vector();
        let (control, control_length) = match self.random.gen_range(0..4) {
            0 => {
                let control = match to_send {
                    true => self.control(),
                    false => vec![0; 600],
                };
                let length = match self.random.gen_range(0..10) {
                    0 => self.int() as usize,
                    _ => control.len(),
                };
                (self.put(&control), length)
            }
            _ => (0, 0),
        };
        let mut bytes = words(&[name, 0, vector, count, control, control_length, 0]);
        bytes[8..12].copy_from_slice(&name_length.to_ne_bytes());
        let flags = self.flags() as u32;
        bytes[48..52].copy_from_slice(&flags.to_ne_bytes());
        (bytes, most)
    }

    /// An offset that a call reads and writes, or none.
    pub(super) fn offset(&mut self) -> usize {
        match self.random.gen_range(0..6) {
            0 => {
                let offset = self.int() as i64;
                self.put(&offset.to_ne_bytes())
            }
            1 => self.arena.put(&[0; 8]),
            _ => 0,
        }
    }

    /// A length, within reason mostly.
    pub(super) fn length(&mut self) -> usize {
        match self.random.gen_range(0..10) {
            0 => self.int() as usize,
            1 => usize::MAX,
            _ => self.random.gen_range(0..150_000),
        }
    }

    /// A timeout in milliseconds; who waits for ever is sent a signal.
    pub(super) fn milliseconds(&mut self) -> i32 {
        self.one(&[0, 0, 0, 1, 10, -1, i32::MIN, i32::MAX])
    }
}
