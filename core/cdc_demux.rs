// SPDX-License-Identifier: GPL-2.0

//! From a link's completions to the connections they are for. Everything here runs in bottom-half
//! context.

use super::{
    group::LinkGroup,
    link::{
        Link,
        Sent, //
    }, //
};
use crate::{
    ib::wr::Received,
    rx_tx::{
        cdc::{
            CdcMessage,
            CDC_TYPE, //
        },
        immediate::Immediate, //
    }, //
};
use kernel::sync::Arc;

/// A message has come in.
pub(super) fn received(group: &Arc<LinkGroup>, link: &Link, message: &Received<'_>) {
    link.note_activity();
    let head = message.head();
    if head.first() != Some(&CDC_TYPE) {
        group.queue_llc(link, message);
        return;
    }
    // RFC 7609, section A.4: what is not a CDC message after all is dropped.
    let Ok(message) = CdcMessage::parse(head) else {
        return;
    };
    let token = message.token.0;
    let handled = group.with_conn(token, |conn| conn.handle_cdc(link, &message));
    if handled.is_none() && message.conn_state.says_goodbye() {
        group.peer_has_left(token);
    }
}

/// An RDMA WRITE WITH IMMEDIATE of `len` bytes has come in.
pub(super) fn immediate(group: &LinkGroup, link: &Link, immediate: u32, len: u32) {
    link.note_activity();
    // From a peer that has not agreed to it this means nothing.
    if !group.uses_immediates() {
        return;
    }
    let immediate = Immediate(immediate);
    group.with_short_token(immediate.token(), |conn| {
        conn.handle_immediate(link, immediate, len);
    });
}

/// CDC messages of ours have been sent, and the data that went with them is in the peer's memory.
pub(super) fn sent(group: &LinkGroup, sent: &Sent) {
    group.with_conn(sent.last.token, |conn| conn.handle_sent(sent));
}
