// SPDX-License-Identifier: GPL-2.0

//! Where `libsmc-preload.so` is.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Its name.
const NAME: &str = "libsmc-preload.so";
/// Directories as seen from the one that smc_run is in: that of `make install-tools`, then the others
/// that distributions have.
const PLACES: [&str; 4] = ["../lib", "../lib64", "../lib/x86_64-linux-gnu", "."];

/// The whole path of the library: of the variable `SMC_PRELOAD`, or near smc_run itself. The error
/// is in words.
pub(crate) fn find() -> Result<PathBuf, String> {
    let myself =
        env::current_exe().map_err(|error| format!("cannot tell where smc_run is: {error}"))?;
    let directory = myself.parent().unwrap_or(Path::new("/"));
    choose(env::var_os("SMC_PRELOAD"), directory)
}

fn choose(named: Option<OsString>, directory: &Path) -> Result<PathBuf, String> {
    let mut places: Vec<PathBuf> = match &named {
        Some(named) => vec![named.into()],
        None => PLACES
            .iter()
            .map(|place| directory.join(place).join(NAME))
            .collect(),
    };
    // Whole, since the program may change its directory before it starts others; and without what
    // the loader takes for a separator.
    places = places
        .iter()
        .filter_map(|place| place.canonicalize().ok())
        .collect();
    let Some(found) = places.into_iter().next() else {
        return Err(match named {
            Some(named) => format!(
                "{}: no such file: set SMC_PRELOAD to the path of {NAME}, or unset it",
                Path::new(&named).display()
            ),
            None => format!(
                "{NAME} is not near {}: run 'make install-tools', or name it with SMC_PRELOAD=",
                directory.display()
            ),
        });
    };
    let separators = [b' ', b':'];
    if found
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .any(|byte| separators.contains(byte))
    {
        return Err(format!(
            "{}: LD_PRELOAD cannot have a path with blanks or colons",
            found.display()
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_library_is_found_near_the_program() {
        let root = env::temp_dir().join(format!("smc_run-library-{}", std::process::id()));
        let (bin, lib) = (root.join("bin"), root.join("lib"));
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(&lib).unwrap();
        let missing = choose(None, &bin).unwrap_err();
        assert!(missing.contains("make install-tools"), "{missing}");
        fs::write(bin.join(NAME), "").unwrap();
        let root = root.canonicalize().unwrap();
        assert_eq!(choose(None, &bin).unwrap(), root.join("bin").join(NAME));
        fs::write(lib.join(NAME), "").unwrap();
        assert_eq!(choose(None, &bin).unwrap(), root.join("lib").join(NAME));
        let named = root.join("my own.so");
        let absent = choose(Some(named.clone().into()), &bin).unwrap_err();
        assert!(absent.contains("my own.so: no such file"), "{absent}");
        fs::write(&named, "").unwrap();
        let refused = choose(Some(named.into()), &bin).unwrap_err();
        assert!(refused.contains("blanks"), "{refused}");
        fs::remove_dir_all(&root).unwrap();
    }
}
