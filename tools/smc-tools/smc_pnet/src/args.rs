// SPDX-License-Identifier: GPL-2.0

//! The command line.

use clap::{ArgGroup, Parser};

/// Shows and changes the table of physical networks: which Ethernet device belongs with which RDMA device.
///
/// Without options the whole table is shown. Devices with the same PNETID are on the same physical network, so SMC
/// may use the RDMA device for connections that leave by the Ethernet device. Nothing is needed where the RDMA device is
/// that of the network device itself.
#[derive(Parser, Debug)]
#[command(name = "smc_pnet", version = smc_tools_common::VERSION, disable_version_flag = true,
    group = ArgGroup::new("command").args(["add", "delete", "show", "flush"]), group = ArgGroup::new("device").multiple(true))]
pub(crate) struct Args {
    /// Add an entry: needs an interface or a device
    #[arg(short, long, requires = "pnetid", requires = "device")]
    pub(crate) add: bool,
    /// Delete the entries of a PNETID
    #[arg(short, long, requires = "pnetid")]
    pub(crate) delete: bool,
    /// Show the entries of a PNETID, or all
    #[arg(short, long)]
    pub(crate) show: bool,
    /// Delete all entries
    #[arg(short, long, conflicts_with = "pnetid")]
    pub(crate) flush: bool,
    /// Ethernet device; need not be there yet
    #[arg(
        short = 'I',
        long,
        value_name = "INTERFACE",
        requires = "command",
        conflicts_with_all = ["delete", "show", "flush"],
        group = "device"
    )]
    pub(crate) interface: Option<String>,
    /// RDMA device
    #[arg(
        short = 'D',
        long,
        value_name = "DEVICE",
        requires = "command",
        conflicts_with_all = ["delete", "show", "flush"],
        group = "device"
    )]
    pub(crate) ibdevice: Option<String>,
    /// Port of the RDMA device: 1 if not given
    #[arg(short = 'P', long, value_name = "PORT", requires = "ibdevice", value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) ibport: Option<u8>,
    /// Print as JSON, one object in one line
    #[arg(long)]
    pub(crate) json: bool,
    /// 1 to 16 letters and digits; small letters are as capitals
    #[arg(requires = "command")]
    pub(crate) pnetid: Option<String>,
    /// Show the version
    #[arg(short, long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;

    fn parse(line: &str) -> Result<Args, ErrorKind> {
        let words = std::iter::once("smc_pnet").chain(line.split_whitespace());
        Args::try_parse_from(words).map_err(|error| error.kind())
    }

    #[test]
    fn the_definition_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn lines_of_ibms_manual_are_understood() {
        let args = parse("").unwrap();
        assert!(!args.add && !args.delete && !args.flush && args.pnetid.is_none());
        let args = parse("-a NET1 -I eth0 -D mlx5_0 -P 2").unwrap();
        assert!(args.add);
        assert_eq!(args.pnetid.as_deref(), Some("NET1"));
        assert_eq!(args.interface.as_deref(), Some("eth0"));
        assert_eq!(
            (args.ibdevice.as_deref(), args.ibport),
            (Some("mlx5_0"), Some(2))
        );
        let args = parse("-I eth0 --add NET1").unwrap();
        assert!(args.add && args.ibdevice.is_none());
        assert!(parse("-D rxe0 -a NET1").is_ok());
        assert!(parse("-s NET1").unwrap().show);
        assert!(parse("--show").unwrap().show);
        assert!(parse("--delete NET1").unwrap().delete);
        assert!(parse("-f").unwrap().flush);
        assert_eq!(parse("-v").unwrap_err(), ErrorKind::DisplayVersion);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "NET1",
            "-a NET1",
            "-a -I eth0",
            "-d",
            "-f NET1",
            "-s NET1 -I eth0",
            "-I eth0",
            "NET1 -I eth0",
            "-a NET1 -I eth0 -P 1",
            "-a NET1 -D rxe0 -P 0",
            "-a NET1 -D rxe0 -P 3",
            "-a -d NET1 -I eth0",
            "-s NET1 NET2",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
