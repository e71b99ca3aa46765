// SPDX-License-Identifier: GPL-2.0

//! `TCP_INFO` of a socket whose bytes TCP does not carry.

use super::{
    clcsock::ClcSock,
    proto_ops::GetOption, //
};
use crate::bindings;
use core::{
    mem::MaybeUninit,
    ptr, //
};
use kernel::error::Result;

/// TCP's states, by their numbers in `tcpi_state` (`include/net/tcp_states.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum ShownState {
    /// Both directions are open.
    Established = 1,
    /// The connection is being made.
    SynSent = 2,
    /// We have ended our direction, and the peer does not know it yet.
    FinWait1 = 4,
    /// As before, and the peer knows it.
    FinWait2 = 5,
    /// Both directions have ended.
    Close = 7,
    /// The peer has ended its direction.
    CloseWait = 8,
}

/// What is known of the bytes that TCP does not carry. Times are milliseconds ago.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    pub(crate) state: ShownState,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_acked: u64,
    pub(crate) bytes_received: u64,
    /// Messages, with data or without.
    pub(crate) messages_sent: u32,
    pub(crate) messages_received: u32,
    pub(crate) data_messages_sent: u32,
    pub(crate) data_messages_received: u32,
    /// Messages that the peer's adapter has not acknowledged.
    pub(crate) unacked: u32,
    pub(crate) unsent_bytes: u32,
    /// Room in the peer's buffer, and in ours.
    pub(crate) send_window: u32,
    pub(crate) receive_window: u32,
    pub(crate) receive_buffer: u32,
    pub(crate) last_sent: u32,
    pub(crate) last_received: u32,
    /// Bytes that a packet on the link carries.
    pub(crate) mtu: u32,
}

/// `struct tcp_info`.
pub(crate) struct TcpInfo(bindings::tcp_info);

impl TcpInfo {
    /// TCP's own answer. May sleep.
    pub(crate) fn of(clc: &ClcSock) -> Self {
        // SAFETY: `tcp_info` is plain old data, for which all zeroes is valid.
        let mut info = Self(unsafe { MaybeUninit::zeroed().assume_init() });
        // SAFETY: The `sk` of a clcsock is a live TCP socket, which this locks.
        unsafe { bindings::tcp_get_info(clc.sk(), &mut info.0) };
        info
    }

    /// Replaces the state.
    pub(crate) fn set_state(&mut self, state: ShownState) {
        self.0.tcpi_state = state as u8;
    }

    /// Replaces what is about the queue of a listener.
    pub(crate) fn set_queue(&mut self, len: u32) {
        self.0.tcpi_unacked = len;
    }

    /// Replaces everything that is about bytes, and leaves what is about the path (the round trip
    /// that TCP has measured) and the options.
    pub(crate) fn set_stream(&mut self, stream: &Stream) {
        self.set_state(stream.state);
        let info = &mut self.0;
        info.tcpi_bytes_sent = stream.bytes_sent;
        info.tcpi_bytes_acked = stream.bytes_acked;
        info.tcpi_bytes_received = stream.bytes_received;
        info.tcpi_segs_out = stream.messages_sent;
        info.tcpi_segs_in = stream.messages_received;
        info.tcpi_data_segs_out = stream.data_messages_sent;
        info.tcpi_data_segs_in = stream.data_messages_received;
        info.tcpi_delivered = stream.data_messages_sent.saturating_sub(stream.unacked);
        info.tcpi_unacked = stream.unacked;
        info.tcpi_notsent_bytes = stream.unsent_bytes;
        info.tcpi_snd_wnd = stream.send_window;
        info.tcpi_rcv_wnd = stream.receive_window;
        info.tcpi_rcv_space = stream.receive_buffer;
        info.tcpi_last_data_sent = stream.last_sent;
        info.tcpi_last_data_recv = stream.last_received;
        info.tcpi_last_ack_recv = stream.last_received;
        info.tcpi_pmtu = stream.mtu;
        info.tcpi_snd_mss = stream.mtu;
        info.tcpi_rcv_mss = stream.mtu;
        info.tcpi_advmss = stream.mtu;
    }

    /// Answers with it.
    pub(crate) fn put(&self, option: &GetOption) -> Result {
        // SAFETY: `struct tcp_info` is plain old data of this size, zeroed before C filled it.
        let bytes = unsafe {
            core::slice::from_raw_parts(
                ptr::from_ref(&self.0).cast::<u8>(),
                size_of::<bindings::tcp_info>(),
            )
        };
        option.put_bytes(bytes)
    }
}
