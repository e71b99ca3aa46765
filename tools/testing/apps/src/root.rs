//! The root with the programs: the host's directory by 9p, what is written to it in memory.

use smc_selftest::{rig, Context, Outcome};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

/// Where cases run, by chroot.
pub const DIR: &str = "/run/apps/root";
/// What the host sees: logs and results.
const KEPT: &str = "/run/apps/kept";
const FILES: &str = "/rig/apps";

pub const ENVIRONMENT: [&str; 6] = [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
    "TERM=dumb",
    "USER=root",
    "RESULTS=/run/results",
];

const HOSTS: &str = "127.0.0.1 localhost vm\n::1 localhost ip6-localhost\n10.9.0.1 a\n10.9.0.2 b\n";

/// A file of `tools/testing/apps`.
pub fn read(name: &str) -> Outcome<String> {
    std::fs::read_to_string(format!("{FILES}/{name}")).during(&format!("tools/testing/apps/{name}"))
}

pub fn mount() -> Outcome {
    for module in ["9pnet_virtio", "9p", "overlay"] {
        rig::run(&format!("modprobe {module}"))?;
    }
    for dir in ["lower", "upper", "kept", "root"] {
        std::fs::create_dir_all(format!("/run/apps/{dir}"))?;
    }
    let options = "trans=virtio,version=9p2000.L,msize=1048576";
    rig::run(&format!(
        "mount -t 9p -o {options},cache=loose,ro root /run/apps/lower"
    ))?;
    rig::run(&format!("mount -t 9p -o {options} kept {KEPT}"))?;
    rig::run("mount -t tmpfs tmpfs /run/apps/upper")?;
    std::fs::create_dir_all("/run/apps/upper/data")?;
    std::fs::create_dir_all("/run/apps/upper/work")?;
    rig::run(&format!(
        "mount -t overlay -o lowerdir=/run/apps/lower,upperdir=/run/apps/upper/data,workdir=/run/apps/upper/work overlay {DIR}"
    ))?;
    rig::run(&format!("mount --rbind /sys {DIR}/sys"))?;
    rig::run(&format!("mount --rbind /dev {DIR}/dev"))?;
    for dir in ["run", "tmp"] {
        rig::run(&format!("mount -t tmpfs tmpfs {DIR}/{dir}"))?;
    }
    for (from, to) in [("/run/netns", "run/netns"), ("/rig/apps/guest", "rig")] {
        std::fs::create_dir_all(format!("{DIR}/{to}"))?;
        rig::run(&format!("mount --rbind {from} {DIR}/{to}"))?;
        // Else what is unmounted here would be unmounted there.
        rig::run(&format!("mount --make-rprivate {DIR}/{to}"))?;
    }
    std::fs::write(format!("{DIR}/etc/hosts"), HOSTS)?;
    Ok(())
}

pub fn unmount() -> Outcome {
    rig::run("umount -R /run/apps/root")?;
    for dir in ["kept", "upper", "lower"] {
        rig::run(&format!("umount /run/apps/{dir}"))?;
    }
    Ok(())
}

/// An empty file for the results of a case.
pub fn fresh_results() -> Outcome<PathBuf> {
    let path = Path::new(DIR).join("run/results");
    std::fs::write(&path, "").during("the file for the results")?;
    Ok(path)
}

/// A new file that the host keeps.
pub fn log(name: &str) -> Outcome<File> {
    let path = format!("{KEPT}/{name}");
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .during(&path)
}

pub fn keep(name: &str, text: &str) -> Outcome {
    std::fs::write(format!("{KEPT}/{name}"), text).during(name)
}
