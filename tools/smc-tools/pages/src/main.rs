// SPDX-License-Identifier: GPL-2.0

//! smc-tools-pages DIRECTORY: man pages and completions of all tools, below that directory. Not
//! installed; `tools/smc-tools/build` runs it.

#![forbid(unsafe_code)]

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

// The very definitions of the programs, which have no library.
#[allow(dead_code, reason = "only the definition is of interest here")]
#[path = "../../smc_chk/src/args.rs"]
mod smc_chk;
#[allow(dead_code, reason = "as above")]
#[path = "../../smc_pnet/src/args.rs"]
mod smc_pnet;
#[allow(dead_code, reason = "as above")]
#[path = "../../smc_run/src/args.rs"]
mod smc_run;
#[allow(dead_code, reason = "as above")]
#[path = "../../smcss/src/args.rs"]
mod smcss;

/// Section of the manual: for administrators.
const SECTION: &str = "8";

/// A tool, and what its page says that its definition does not.
struct Tool {
    command: Command,
    /// Exit status, files, examples: in the language of man pages.
    more: &'static str,
}

fn tools() -> Vec<Tool> {
    let tool = |command, more| Tool { command, more };
    vec![
        tool(
            smcr::args::Smcr::command(),
            ".SH \"EXIT STATUS\"\n0; 1 if the module is not loaded or the kernel refuses; 2 for a wrong command line.\n\
             .SH FILES\n.TP\n$XDG_RUNTIME_DIR/smcstats.uUSER.nNAMESPACE\nwhat was counted at the last \\fBstats reset\\fR; in \
             /run for root, where that variable is not set\n\
             .SH EXAMPLES\n.nf\nsmcr \\-dd linkgroup link\\-show\nsmcr device netdev eth0\nsmcr stats reset\nsmcr stats \
             \\-\\-watch=5\nsmcr ueid add COMPANY.RACK1\n.fi\n",
        ),
        tool(
            smcr::args::Smcd::command(),
            ".SH \"EXIT STATUS\"\n0; 1 if the module is not loaded or the kernel refuses; 2 for a wrong command line.\n",
        ),
        tool(
            smc_chk::Args::command(),
            ".SH \"EXIT STATUS\"\n0 if every check passed; 1 if one failed, or could not be made; 2 for a wrong command line.\n\
             .SH EXAMPLES\n.nf\nsmc_chk\nsmc_chk eth0\nserver# smc_chk \\-S\nclient# smc_chk \\-C server\nsmc_chk \\-C server \
             \\-p 6379\n.fi\n",
        ),
        tool(
            smc_pnet::Args::command(),
            ".SH \"EXIT STATUS\"\n0; 1 if the module is not loaded or the kernel refuses; 2 for a wrong command line.\n\
             .SH EXAMPLES\n.nf\nsmc_pnet \\-a NET1 \\-I eth0\nsmc_pnet \\-a NET1 \\-D mlx5_0 \\-P 1\nsmc_pnet \\-d NET1\n.fi\n",
        ),
        tool(
            smc_run::Args::command(),
            ".SH ENVIRONMENT\n.TP\nSMC_DEBUG, SMC_RCVBUF, SMC_SNDBUF, SMC_SOCK_FAMILY\nas the options; also without \
             \\fBsmc_run\\fR, with LD_PRELOAD=libsmc\\-preload.so\n.TP\nSMC_PRELOAD\nanother library than the one that came with \
             \\fBsmc_run\\fR\n\
             .SH \"EXIT STATUS\"\nThat of the program; 1 for a wrong option, 126 if the program cannot be started, 127 if it is \
             not there.\n\
             .SH NOTES\nStatic programs, setuid programs and those that make system calls themselves (Go) are out of reach: for \
             those there is net.smc.tcp2smc.\n\
             .SH EXAMPLES\n.nf\nsmc_run curl http://server/\nsmc_run \\-r 512k \\-t 512k redis\\-server\n.fi\n",
        ),
        tool(
            smcss::Args::command(),
            ".SH \"EXIT STATUS\"\n0; 1 if the module is not loaded; 2 for a wrong command line.\n\
             .SH EXAMPLES\n.nf\nsmcss \\-a\nsmcss \\-R \\-\\-json\nsmcss \\-\\-watch=5\n.fi\n",
        ),
    ]
}

/// A page of a tool, or of an object of it.
fn page(command: &Command, name: &str, more: &str, others: &[String]) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .title(name)
        .section(SECTION)
        .source(smc_tools_common::VERSION)
        .manual("SMC tools")
        // A page is the same whenever it is made.
        .date("");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    page.extend(more.as_bytes());
    let others: Vec<String> = others
        .iter()
        .filter(|other| *other != command.get_name())
        .map(|other| format!(".BR {} ({SECTION})", other.replace('-', "\\-")))
        .collect();
    page.extend(format!(".SH \"SEE ALSO\"\n{}\n", others.join(",\n")).into_bytes());
    Ok(page)
}

/// Pages by name: of a tool, of each object (`smcr-stats`) and of each of its commands (`smcr-ueid-add`).
fn pages(tool: &Tool, others: &[String]) -> io::Result<Vec<(String, Vec<u8>)>> {
    // A page of 'help' would say nothing.
    let mut command = tool.command.clone().disable_help_subcommand(true);
    // So that subcommands know their whole names and the options of all.
    command.build();
    let name = command.get_name().to_owned();
    let mut pages = Vec::new();
    let mut left = vec![(name, &command, tool.more)];
    while let Some((name, command, more)) = left.pop() {
        pages.push((name.clone(), page(command, &name, more, others)?));
        for below in command.get_subcommands() {
            left.push((format!("{name}-{}", below.get_name()), below, ""));
        }
    }
    Ok(pages)
}

fn write(directory: &Path) -> io::Result<()> {
    let man = directory.join("man");
    fs::create_dir_all(&man)?;
    let tools = tools();
    let names: Vec<String> = tools
        .iter()
        .map(|tool| tool.command.get_name().to_owned())
        .collect();
    for tool in &tools {
        for (name, page) in pages(tool, &names)? {
            fs::write(man.join(format!("{name}.{SECTION}")), page)?;
        }
        for (shell, place) in [
            (Shell::Bash, "bash"),
            (Shell::Zsh, "zsh"),
            (Shell::Fish, "fish"),
        ] {
            let place = directory.join(place);
            fs::create_dir_all(&place)?;
            let mut command = tool.command.clone();
            let name = command.get_name().to_owned();
            let made = clap_complete::generate_to(shell, &mut command, &name, &place)?;
            // As the shells look for them: bash by the program's name, without an ending.
            if shell == Shell::Bash {
                fs::rename(made, place.join(name))?;
            }
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("usage: smc-tools-pages DIRECTORY");
        return ExitCode::from(2);
    };
    match write(Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("smc-tools-pages: error: writing man pages and completions: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_and_object_has_a_page_with_its_options() {
        let directory =
            std::env::temp_dir().join(format!("smc-tools-pages-{}", std::process::id()));
        write(&directory).unwrap();
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        for tool in tools() {
            let name = tool.command.get_name();
            let page = read(&format!("man/{name}.8"));
            for option in tool.command.get_arguments() {
                if let Some(long) = option.get_long() {
                    let long = format!("\\-\\-{}", long.replace('-', "\\-"));
                    assert!(page.contains(&long), "{name}: no {long}");
                }
            }
            assert!(
                page.contains(".SH \"SEE ALSO\"") && page.contains("EXIT STATUS"),
                "{name}"
            );
            let bash = read(&format!("bash/{name}"));
            assert!(bash.contains(&format!("complete -F _{name}")), "{name}");
            assert!(read(&format!("zsh/_{name}")).starts_with(&format!("#compdef {name}")));
            assert!(read(&format!("fish/{name}.fish")).contains(&format!("complete -c {name}")));
        }
        let object = read("man/smcr-linkgroup.8");
        // Every page that one speaks of is there.
        assert!(
            object.contains("smcr\\-linkgroup\\-link\\-show(8)"),
            "{object}"
        );
        assert!(read("man/smcr-linkgroup-link-show.8").contains("LG\\-ID"));
        assert!(!directory.join("man/smcr-help.8").exists());
        // The same again.
        let before = read("man/smcr.8");
        write(&directory).unwrap();
        assert_eq!(read("man/smcr.8"), before);
        fs::remove_dir_all(&directory).unwrap();
    }
}
