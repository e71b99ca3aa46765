//! The calls that a script is made of.

/// One of the sockets of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Client,
    Server,
    Listener,
}

impl End {
    pub const ALL: [End; 3] = [End::Client, End::Server, End::Listener];
}

/// One call. Those that could block get `MSG_DONTWAIT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Bind(End),
    Listen(End, i32),
    /// To the listener's address. The client waits until it is connected.
    Connect(End),
    /// Waits until the listener has a connection; with flags of accept4(2).
    Accept(i32),
    /// On a socket that is no listener, or when nothing is there, or with wrong flags.
    AcceptNothing(End, i32),
    /// The parts go in one call of sendmsg(2).
    Send {
        end: End,
        parts: Vec<usize>,
        flags: i32,
    },
    /// The parts are filled by one call of recvmsg(2).
    Receive {
        end: End,
        parts: Vec<usize>,
        flags: i32,
    },
    /// recv(2) that waits, as long as `SO_RCVTIMEO` says, which is short.
    ReceiveWaiting {
        end: End,
        len: usize,
        flags: i32,
    },
    /// From a file, by sendfile(2).
    SendFile(End, usize),
    /// Into a pipe, by splice(2), and out of that again.
    Splice(End, usize),
    Shutdown(End, i32),
    SetOption {
        end: End,
        level: i32,
        name: i32,
        value: Vec<u8>,
    },
    GetOption {
        end: End,
        level: i32,
        name: i32,
        room: usize,
    },
    Ioctl(End, libc::c_ulong),
    /// poll(2) for these events, without waiting.
    Poll(End, i16),
    /// A second descriptor takes the place of the first one, which is closed.
    Dup(End),
    Name {
        end: End,
        peer: bool,
    },
    Close(End),
}
