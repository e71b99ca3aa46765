//! TCP or SMC-R, for programs that ask for TCP.

use crate::kind::Host;
use crate::{sys, Fail, Outcome};

const SYSCTL: &str = "/proc/sys/net/smc/tcp2smc";

/// What the sockets of a run are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Smc,
}

impl Transport {
    pub fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "TCP",
            Transport::Smc => "SMC-R",
        }
    }

    /// Decides what `socket(AF_INET, SOCK_STREAM)` makes on both hosts from now on; `mode` is
    /// net.smc.tcp2smc of SMC-R.
    pub fn switch_hosts(self, mode: &str) -> Outcome {
        for host in Host::BOTH {
            sys::enter(host)?;
            self.switch_here(mode)
                .map_err(|Fail(text)| Fail(format!("{text} on host {}", host.name())))?;
        }
        sys::leave()?;
        Ok(())
    }

    /// The same in the namespace of this thread.
    pub fn switch_here(self, mode: &str) -> Outcome {
        let value = match self {
            // Without the module there is nothing else.
            Transport::Tcp if !std::path::Path::new(SYSCTL).exists() => return Ok(()),
            Transport::Tcp => "0",
            Transport::Smc => mode,
        };
        sys::write_file(SYSCTL, value)
            .map_err(|error| Fail(format!("cannot set net.smc.tcp2smc={value}: {error}")))
    }
}
