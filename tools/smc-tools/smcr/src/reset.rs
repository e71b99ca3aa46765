// SPDX-License-Identifier: GPL-2.0

//! Where `stats reset` keeps what was counted until then: a file for each user and network namespace.
//! The kernel's counters only ever grow.

use smc_tools_common::stats::Stats;
use smc_tools_common::Error;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file. A directory that others can write to is not used.
fn path() -> Result<PathBuf, Error> {
    let system = |what| move |error| Error::System { what, error };
    let user = fs::metadata("/proc/self")
        .map_err(system("finding out who asks"))?
        .uid();
    let namespace = fs::metadata("/proc/self/ns/net")
        .map_err(system("finding out the network namespace"))?
        .ino();
    let directory = match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) if !directory.is_empty() => PathBuf::from(directory),
        _ if user == 0 => "/run".into(),
        _ => {
            return Err(Error::Refused(
                "XDG_RUNTIME_DIR is not set, so there is no place to keep counters in: use -a for all since the module \
                 was loaded"
                    .into(),
            ))
        }
    };
    Ok(directory.join(format!("smcstats.u{user}.n{namespace}")))
}

/// What was counted at the last reset; `None` without one.
pub(crate) fn last() -> Result<Option<Stats>, Error> {
    let path = match path() {
        Ok(path) => path,
        // Without a place there was no reset.
        Err(Error::Refused(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    match fs::read_to_string(path) {
        Ok(text) => Ok(Stats::from_lines(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::System {
            what: "reading what was counted at the last reset",
            error,
        }),
    }
}

/// Keeps what is counted now.
pub(crate) fn keep(stats: &Stats) -> Result<(), Error> {
    write(&path()?, &stats.to_lines()).map_err(|error| Error::System {
        what: "keeping what is counted now",
        error,
    })
}

/// A new file in place of the old one, whoever reads meanwhile.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension(format!("p{}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Nothing is lost with it.
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_is_the_users_own() {
        let directory = std::env::temp_dir().join(format!("smcr-reset-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let path = directory.join("smcstats.u0.n1");
        write(&path, "old").unwrap();
        write(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        assert!(write(&directory.join("no/such"), "x").is_err());
        fs::remove_dir_all(&directory).unwrap();
    }
}
