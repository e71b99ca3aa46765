// SPDX-License-Identifier: GPL-2.0

//! What `TCP_INFO` says of an SMC-R connection.

use super::Conn;
use crate::{
    kapi::{
        host,
        tcp_info::{
            ShownState,
            Stream, //
        }, //
    },
    smc_core::state::{
        Life,
        State, //
    }, //
};

impl Conn {
    /// The connection as TCP would describe it; [`None`] after its end. Process context.
    pub(crate) fn stream(&self) -> Option<Stream> {
        self.reap();
        let now = host::coarse_ms();
        let data = self.data.lock();
        let flow = data.flow.as_ref()?;
        let ago = |then: u64| u32::try_from(now.saturating_sub(then)).unwrap_or(u32::MAX);
        let traffic = flow.traffic();
        let room = flow.rx.rmb_len().saturating_sub(flow.rx.readable());
        Some(Stream {
            state: shown(&data.life),
            bytes_sent: traffic.bytes_sent,
            bytes_acked: traffic.bytes_acked,
            bytes_received: traffic.bytes_received,
            messages_sent: traffic.messages_sent,
            messages_received: traffic.messages_received,
            data_messages_sent: traffic.data_messages_sent,
            data_messages_received: traffic.data_messages_received,
            unacked: data.in_flight,
            unsent_bytes: flow.tx.unsent(),
            send_window: flow.tx.window(),
            receive_window: room,
            receive_buffer: flow.rx.rmb_len(),
            last_sent: ago(data.last_sent),
            last_received: ago(data.last_received),
            mtu: data
                .place
                .as_ref()
                .map_or(0, |place| place.link.mtu().bytes()),
        })
    }

    /// The state that TCP would be in.
    pub(crate) fn shown_state(&self) -> ShownState {
        shown(&self.data.lock().life)
    }
}

fn shown(life: &Life) -> ShownState {
    match life.state() {
        State::Init => ShownState::SynSent,
        State::Active if life.is_draining() => ShownState::FinWait1,
        State::Active => ShownState::Established,
        // RDMA acknowledges the message that says so at once.
        State::PeerCloseWait1 if life.is_draining() => ShownState::FinWait1,
        State::PeerCloseWait1 => ShownState::FinWait2,
        State::AppCloseWait1 => ShownState::CloseWait,
        _ => ShownState::Close,
    }
}
