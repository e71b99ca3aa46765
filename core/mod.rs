// SPDX-License-Identifier: GPL-2.0

//! Link groups, links, connections, buffers and sockets: where the other parts are joined.
//!
//! Mounted as `smc_core`; a root module named `core` would hide the crate of that name from the
//! macros of the `kernel` crate.

// Pure: only `core` and `zerocopy`, also built for the host.
pub mod error;
pub mod state;
pub mod types;
pub(crate) mod sock;
pub(crate) mod conn { use kernel::prelude::*; use crate::kapi::{sock::Sock,proto_ops::Message}; use super::sock::*;
pub(crate) struct Conn; pub(crate) struct St{pub(crate) readable:i32,pub(crate) queued:i32,pub(crate) unsent:i32,pub(crate) at_mark:bool}
impl Conn { pub(crate) fn established(&self,_:SockRef){} pub(crate) fn close(&self,_:&Sock<SmcSocket>){} pub(crate) fn abort(&self,_:Error){} pub(crate) fn shutdown(&self,_:&Sock<SmcSocket>,_:bool,_:bool)->Result{Ok(())}
pub(crate) fn set_nodelay(&self,_:bool){} pub(crate) fn set_corked(&self,_:bool){} pub(crate) fn status(&self)->St{St{readable:0,queued:0,unsent:0,at_mark:false}}
pub(crate) fn send(&self,_:&Sock<SmcSocket>,_:&mut Message)->Result<usize>{Err(EPIPE)} pub(crate) fn receive(&self,_:&Sock<SmcSocket>,_:&mut Message)->Result<usize>{Err(EPIPE)} pub(crate) fn poll(&self,_:&Sock<SmcSocket>)->u32{0}}}
