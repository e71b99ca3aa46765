//! net.smc: defaults, ranges and namespaces.

use super::once;
use crate::kind::Host;
use crate::runner::{Ctx, Test};
use crate::sys;
use crate::{check, check_eq, check_errno, Context, Outcome};

pub const TESTS: [Test; 3] = [
    once("settings.defaults", 60, defaults),
    once("settings.ranges", 60, ranges),
    once("settings.per_namespace", 60, per_namespace),
];

fn path(name: &str) -> String {
    format!("/proc/sys/net/smc/{name}")
}

pub(super) fn get(host: Host, name: &str) -> Outcome<i64> {
    sys::enter(host)?;
    sys::read_file(&path(name))?
        .trim()
        .parse()
        .during(&path(name))
}

pub(super) fn set(host: Host, name: &str, value: i64) -> std::io::Result<()> {
    sys::enter(host)?;
    sys::write_file(&path(name), &value.to_string())
}

/// As [`set`], with the system call's own error.
pub(super) fn set_raw(host: Host, name: &str, value: i64) -> std::io::Result<std::io::Result<()>> {
    sys::enter(host)?;
    Ok(std::fs::write(path(name), value.to_string()))
}

/// Sets a value on both hosts and puts the old ones back when dropped.
pub(super) struct Changed {
    name: &'static str,
    old: Vec<(Host, i64)>,
}

impl Changed {
    pub(super) fn new(hosts: &[Host], name: &'static str, value: i64) -> Outcome<Changed> {
        let mut changed = Changed {
            name,
            old: Vec::new(),
        };
        for &host in hosts {
            changed.old.push((host, get(host, name)?));
            set(host, name, value).during(&format!("net.smc.{name}={value}"))?;
        }
        Ok(changed)
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        for &(host, value) in &self.old {
            if let Err(error) = set(host, self.name, value) {
                eprintln!("# cannot put net.smc.{} back: {error}", self.name);
            }
        }
    }
}

/// (name, default, least, greatest); None: checked elsewhere, or no limit.
const TABLE: [(&str, Option<i64>, i64, Option<i64>); 17] = [
    ("tcp2smc", Some(0), 0, Some(2)),
    ("wmem", None, 16384, Some(i32::MAX as i64 / 2)),
    ("rmem", None, 16384, Some(i32::MAX as i64 / 2)),
    ("autocorking_size", Some(65536), 0, Some(u32::MAX as i64)),
    ("smcr_buf_type", Some(0), 0, Some(2)),
    ("smcr_testlink_time", Some(30), 0, Some(2_147_483)),
    ("smcr_lgr_free_delay", Some(600), 0, Some(3600)),
    ("smcr_max_links_per_lgr", Some(2), 1, Some(2)),
    ("smcr_max_conns_per_lgr", Some(255), 16, Some(255)),
    ("smcr_max_send_wr", Some(16), 2, Some(2048)),
    ("smcr_max_recv_wr", Some(48), 2, Some(2048)),
    ("limit_smc_hs", Some(0), 0, Some(1)),
    ("vendor_options", Some(1), 0, Some(1)),
    ("adaptive", Some(0), 0, Some(1)),
    ("adaptive_bytes", Some(131_072), 1, Some(i32::MAX as i64)),
    ("adaptive_ms", Some(1000), 1, Some(i32::MAX as i64)),
    ("adaptive_forget", Some(300), 1, Some(2_147_483)),
];

fn defaults(_: &Ctx) -> Outcome {
    for host in Host::BOTH {
        for (name, default, _, _) in TABLE {
            if let Some(default) = default {
                check_eq!(
                    get(host, name)?,
                    default,
                    "net.smc.{name} on host {}",
                    host.name()
                );
            }
        }
        for (name, of_tcp) in [("wmem", "tcp_wmem"), ("rmem", "tcp_rmem")] {
            let text = sys::read_file(&format!("/proc/sys/net/ipv4/{of_tcp}"))?;
            let middle = text
                .split_whitespace()
                .nth(1)
                .and_then(|word| word.parse::<i64>().ok());
            check_eq!(
                Some(get(host, name)?),
                middle,
                "net.smc.{name} against net.ipv4.{of_tcp}"
            );
        }
    }
    Ok(())
}

fn ranges(_: &Ctx) -> Outcome {
    let host = Host::A;
    for (name, _, least, greatest) in TABLE {
        let before = get(host, name)?;
        let mut refused = vec![least - 1];
        let mut taken = vec![least];
        if let Some(greatest) = greatest {
            refused.push(greatest + 1);
            taken.push(greatest);
        }
        for value in refused {
            check_errno!(
                set_raw(host, name, value)?,
                libc::EINVAL,
                "net.smc.{name}={value}"
            );
            check_eq!(
                get(host, name)?,
                before,
                "net.smc.{name} after a refused value"
            );
        }
        for value in taken {
            set(host, name, value).during(&format!("net.smc.{name}={value}"))?;
            check_eq!(get(host, name)?, value, "net.smc.{name} after it was set");
        }
        set(host, name, before).during(&format!("net.smc.{name}={before}"))?;
        sys::enter(host)?;
        check!(
            sys::write_file(&path(name), "rubbish").is_err(),
            "net.smc.{name}=rubbish was not refused"
        );
    }
    Ok(())
}

fn per_namespace(_: &Ctx) -> Outcome {
    let before = get(Host::B, "wmem")?;
    let changed = Changed::new(&[Host::A], "wmem", 32768)?;
    check_eq!(get(Host::A, "wmem")?, 32768, "net.smc.wmem on host A");
    check_eq!(get(Host::B, "wmem")?, before, "net.smc.wmem on host B");
    drop(changed);
    Ok(())
}
