//! What a test changes in a host's network, put back when dropped.

use crate::kind::Host;
use crate::rig;
use crate::sys;
use crate::{Context, Outcome};

/// A value of net.ipv4, put back when dropped.
pub(super) struct Sysctl {
    host: Host,
    path: String,
    old: String,
}

impl Sysctl {
    pub(super) fn set(host: Host, name: &str, value: &str) -> Outcome<Sysctl> {
        sys::enter(host)?;
        let path = format!("/proc/sys/net/ipv4/{name}");
        let old = sys::read_file(&path)?.trim().to_owned();
        sys::write_file(&path, value)?;
        Ok(Sysctl { host, path, old })
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        let put_back = sys::enter(self.host).and_then(|()| sys::write_file(&self.path, &self.old));
        if let Err(error) = put_back {
            eprintln!("# cannot put {} back: {error}", self.path);
        }
    }
}

/// Rules of a host's packet filter, for both versions of IP, gone when dropped.
pub(super) struct Rules(Host);

impl Rules {
    pub(super) fn new(host: Host, hook: &str, rules: &[&str]) -> Outcome<Rules> {
        rig::run_on(host, "nft add table inet smctest")?;
        let all = Rules(host);
        rig::run_on(
            host,
            &format!("nft add chain inet smctest c {{ type filter hook {hook} priority 100 ; }}"),
        )?;
        for rule in rules {
            rig::run_on(host, &format!("nft add rule inet smctest c {rule}"))?;
        }
        Ok(all)
    }

    /// Packets that the rules with a counter have seen.
    pub(super) fn seen(&self) -> Outcome<u64> {
        let text = rig::run_on(self.0, "nft list table inet smctest")?;
        let mut words = text.split_whitespace();
        let mut sum = 0;
        while let Some(word) = words.next() {
            if word == "packets" {
                sum += words
                    .next()
                    .unwrap_or_default()
                    .parse::<u64>()
                    .during("counter")?;
            }
        }
        Ok(sum)
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        if let Err(fail) = rig::run_on(self.0, "nft delete table inet smctest") {
            eprintln!("# {fail}");
        }
    }
}

/// Takes a host's address away meanwhile.
pub(super) fn without_address(host: Host, meanwhile: impl FnOnce() -> Outcome) -> Outcome {
    let (name, dev) = (host.name(), host.netdev());
    let address = format!("{}/24 dev {dev}", host.ipv4());
    rig::run(&format!("ip -n {name} addr del {address}"))?;
    let outcome = meanwhile();
    rig::run(&format!("ip -n {name} addr add {address}"))?;
    rig::await_gid(host)?;
    outcome
}
