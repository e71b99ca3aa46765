// SPDX-License-Identifier: GPL-2.0

//! What a tool prints, and how it ends.

use crate::Error;
use std::io::Write;
use std::process::ExitCode;

/// Prints text as it is, at once.
///
/// # Errors
///
/// [`Error::Output`].
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Error::Output)
}

/// The exit code of a tool whose answer is good or not; says why there is none.
pub fn finish(tool: &str, outcome: Result<bool, Error>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if error.is_closed_output() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{tool}: error: {error}");
            ExitCode::FAILURE
        }
    }
}
